"""Any number of labels for each text, pair of texts, or row of numbers. B: examples of a batch, C: labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from llmtune.data.readers.lists import regrouped
from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.criterion import Criterion, binary_cross_entropy
from llmtune.tasks.inputs import RowInputs, example_ids
from llmtune.tasks.text import place


class MultilabelTask:
    """A sigmoid for each label; the loss of a row is the mean binary cross-entropy of its labels.

    Args:
        inputs: of the rows.
        label_names: in the order of their ids.
        threshold: probability from which on a label is predicted.
        label_bias: is added to each label's log-odds before the threshold decides; None: nothing is.

    Attributes:
        criterion: the training loss of each row; a checkpoint knows nothing of it.
    """

    type = "multilabel"

    def __init__(
        self,
        inputs: RowInputs,
        *,
        label_names: Sequence[str],
        threshold: float,
        label_bias: Sequence[float] | None = None,
    ):
        self.inputs, self.label_names, self.threshold = inputs, tuple(label_names), threshold
        self.label_bias = label_bias
        self.criterion: Criterion = binary_cross_entropy

    def describe(self) -> dict[str, Any]:
        own = {"type": self.type, "label_names": list(self.label_names), "threshold": self.threshold}
        bias = {"label_bias": list(self.label_bias)} if self.label_bias is not None else {}
        return {**own, **bias, **self.inputs.describe()}

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        stored = self.inputs.encode(columns)
        if "labels" in columns:
            labels = columns["labels"]
            items = labels.flatten()
            ids = pc.index_in(items, value_set=pa.array(self.label_names, pa.string()))
            if ids.null_count:
                at = pc.index(ids.is_null(), True).as_py()
                raise self._unknown(items[at].as_py(), place(columns, labels.value_parent_indices()[at].as_py()))
            stored["labels"] = regrouped(labels, ids.cast(pa.int32()))
        return stored

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, lengths = self.inputs.collate(examples, draw)
        targets = {}
        if "labels" in examples[0]:
            targets["labels"] = torch.zeros(len(examples), len(self.label_names))
            for row, example in zip(targets["labels"], examples, strict=True):
                row[torch.from_numpy(np.array(example["labels"], dtype=np.int64))] = 1.0
        return Batch(inputs, targets, example_ids(examples), lengths, float(len(examples)))

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        return LossTerms(self.losses(model(**batch.inputs).logits, batch.targets).sum())

    def losses(self, logits_BC: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The training loss of each row, float32 [B]."""
        return self.criterion(logits_BC.float(), targets["labels"])

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        logits_BC = model(**batch.inputs).logits.float()
        probabilities_BC = logits_BC.sigmoid().cpu().numpy()
        unbiased_BC = predicted_BC = probabilities_BC >= self.threshold
        if self.label_bias is not None:
            biased_BC = logits_BC + torch.tensor(self.label_bias, device=logits_BC.device)
            predicted_BC = (biased_BC.sigmoid() >= self.threshold).cpu().numpy()
        outputs = {"prediction": predicted_BC, "probabilities": probabilities_BC}
        losses, sums = np.zeros(len(batch.example_ids)), {}
        if batch.targets:
            losses = binary_cross_entropy(logits_BC, batch.targets["labels"]).double().cpu().numpy()
            outputs["reference"] = batch.targets["labels"].bool().cpu().numpy()
            sums = _sums(predicted_BC, outputs["reference"])
            if self.label_bias is not None:
                without = _sums(unbiased_BC, outputs["reference"])
                sums |= {f"unbiased_{name}": values for name, values in without.items()}
        return Scores(batch.example_ids.numpy(), losses, np.ones(len(losses)), outputs, sums)

    def _unknown(self, label: str, where: str) -> DataError:
        known = ", ".join(self.label_names[:10]) + (", ..." if len(self.label_names) > 10 else "")
        message = f"the label {label[:80]!r} does not occur in the train rows"
        return DataError(message, where=where, remedy=f"the labels are: {known}; correct the row, or set task.label_names")


def _sums(predicted_BC: np.ndarray, reference_BC: np.ndarray) -> dict[str, np.ndarray]:
    """What the metrics follow from: `counts` [C, 3] of right, predicted and real labels, exact rows, F1 summed over rows."""
    right_BC = predicted_BC & reference_BC
    counts = np.stack([cells.sum(0, dtype=np.int64) for cells in (right_BC, predicted_BC, reference_BC)], axis=1)
    both_B = predicted_BC.sum(1) + reference_BC.sum(1)
    f1_B = 2 * right_BC.sum(1) / np.maximum(both_B, 1)  # 0 where there is nothing and nothing is predicted, as in scikit-learn
    return {"counts": counts, "num_exact": (predicted_BC == reference_BC).all(1).sum(), "f1_samples": f1_B.sum()}
