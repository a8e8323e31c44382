"""One class out of several for each text, pair of texts, or row of numbers."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.inputs import RowInputs, example_ids
from llmtune.tasks.text import place

_WHOLE_NUMBER = re.compile(r"[+-]?\d+\.0*")


class ClassificationTask:
    """Softmax over the label names."""

    type = "classification"

    def __init__(self, inputs: RowInputs, *, label_names: Sequence[str]):
        self.inputs = inputs
        self.label_names = tuple(label_names)
        self._ids = {name: i for i, name in enumerate(self.label_names)}

    def describe(self) -> dict[str, Any]:
        return {"type": self.type, "label_names": list(self.label_names), **self.inputs.describe()}

    def encode(self, columns: dict[str, Sequence]) -> dict[str, list]:
        stored = self.inputs.encode(columns)
        if "label" in columns:
            stored["label"] = [self._label_id(columns, i) for i in range(len(columns["label"]))]
        return stored

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, lengths = self.inputs.collate(examples, draw)
        targets = {"labels": torch.tensor([e["label"] for e in examples], dtype=torch.int64)} if "label" in examples[0] else {}
        return Batch(inputs, targets, example_ids(examples), lengths, float(len(examples)))

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        logits_BC = model(**batch.inputs).logits
        total = F.cross_entropy(logits_BC.float(), batch.targets["labels"], reduction="sum")
        return LossTerms(total)

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        logits_BC = model(**batch.inputs).logits.float()
        outputs = {
            "prediction": logits_BC.argmax(-1).cpu().numpy(),
            "probabilities": logits_BC.softmax(-1).cpu().numpy(),
        }
        losses = np.zeros(len(batch.example_ids))
        if batch.targets:
            losses = F.cross_entropy(logits_BC, batch.targets["labels"], reduction="none").double().cpu().numpy()
            outputs["reference"] = batch.targets["labels"].cpu().numpy()
        return Scores(batch.example_ids.numpy(), losses, np.ones(len(losses)), outputs)

    def _label_id(self, columns: dict[str, Sequence], index: int) -> int:
        label = columns["label"][index]
        if label not in self._ids:
            known = ", ".join(self.label_names[:10]) + (", ..." if len(self.label_names) > 10 else "")
            raise DataError(
                f"the label {label[:80]!r} does not occur in the train rows" if label else "the label is empty",
                where=place(columns, index),
                remedy=f"the labels are: {known}; correct or remove the row",
            )
        return self._ids[label]


def label_names_of(labels: Sequence[str | None], columns: dict[str, Sequence]) -> list[str]:
    """The sorted names of the train rows' labels; whole numbers in numeric order.

    Raises:
        DataError: a label is empty, NaN or a fraction, or there is only one class.
    """
    for i, label in enumerate(labels):
        if not label:
            remedy = "correct or remove the row, or leave it out with data.where"
            raise DataError("the label is empty", where=place(columns, i), remedy=remedy)
        if label.lower() in ("nan", "none", "null"):
            remedy = f"correct or remove the row; if this is the name of a class, rename it: data.label_map={{{label}: ...}}"
            raise DataError(f"the label is {label!r}", where=place(columns, i), remedy=remedy)
    names = sorted(set(labels))
    if all(_is_number(n) for n in names):
        fraction = next((n for n in names if float(n) != int(float(n))), None)
        if fraction is not None:
            raise DataError(
                f"the label {fraction!r} is a fraction",
                where=place(columns, labels.index(fraction)),
                remedy="task=regression predicts numbers; classes are names or whole numbers",
            )
        names.sort(key=float)
    if len(names) < 2:
        raise DataError(f"all {len(labels)} train rows have the label {names[0]!r}: there is nothing to tell apart")
    return names


def plain_label(label: str | None) -> str | None:
    """A label without spaces around it; a whole number without the '.0' that columns with gaps are often written with."""
    if label is None:
        return None
    label = label.strip()
    return label.partition(".")[0] if _WHOLE_NUMBER.fullmatch(label) else label


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False
