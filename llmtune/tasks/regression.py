"""One number for each text or each row of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.inputs import RowInputs, example_ids
from llmtune.tasks.text import as_numbers


class RegressionTask:
    """Mean squared error, in the unit of the target."""

    type = "regression"

    def __init__(self, inputs: RowInputs, *, target_mean: float, target_std: float):
        self.inputs, self.target_mean, self.target_std = inputs, target_mean, target_std

    def describe(self) -> dict[str, Any]:
        return {"type": self.type, "target_mean": self.target_mean, "target_std": self.target_std, **self.inputs.describe()}

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        stored = self.inputs.encode(columns)
        if "label" in columns:
            stored["target"] = pa.array(as_numbers(columns, "label"), pa.float64())
        return stored

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, lengths = self.inputs.collate(examples, draw)
        targets = {}
        if "target" in examples[0]:
            targets["values"] = torch.tensor([e["target"] for e in examples], dtype=torch.float32)
        return Batch(inputs, targets, example_ids(examples), lengths, float(len(examples)))

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        return LossTerms(self.losses(model(**batch.inputs).logits, batch.targets).sum())

    def losses(self, logits_B1: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The training loss of each row, float32 [B]."""
        return (logits_B1.float().squeeze(-1) - targets["values"]).square()

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        values_B = model(**batch.inputs).logits.float().squeeze(-1).double().cpu().numpy()
        outputs, losses = {"prediction": values_B}, np.zeros(len(values_B))
        if batch.targets:
            outputs["reference"] = batch.targets["values"].double().cpu().numpy()
            losses = (values_B - outputs["reference"]) ** 2
        return Scores(batch.example_ids.numpy(), losses, np.ones(len(losses)), outputs)
