"""One class out of several for each text, pair of texts, or row of numbers."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.criterion import Criterion, cross_entropy
from llmtune.tasks.inputs import RowInputs, example_ids
from llmtune.tasks.text import place

_WHOLE_NUMBER = re.compile(r"[+-]?\d+\.0*")


class ClassificationTask:
    """Softmax over the label names.

    Args:
        inputs: what a row is.
        label_names: in the order of the class ids.
        label_bias: is added to the log-probabilities before the largest decides, one for each label; None: nothing is.

    Attributes:
        criterion: the training loss of each row; a checkpoint knows nothing of it.
    """

    type = "classification"

    def __init__(self, inputs: RowInputs, *, label_names: Sequence[str], label_bias: Sequence[float] | None = None):
        self.inputs = inputs
        self.label_names = tuple(label_names)
        self.label_bias = label_bias
        self.criterion: Criterion = cross_entropy

    def describe(self) -> dict[str, Any]:
        bias = {"label_bias": list(self.label_bias)} if self.label_bias is not None else {}
        return {"type": self.type, "label_names": list(self.label_names), **bias, **self.inputs.describe()}

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        stored = self.inputs.encode(columns)
        if "label" in columns:
            ids = pc.index_in(columns["label"], value_set=pa.array(self.label_names, pa.string()))
            if ids.null_count:
                raise self._unknown(columns, pc.index(ids.is_null(), True).as_py())
            stored["label"] = ids.cast(pa.int64())
        return stored

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, lengths = self.inputs.collate(examples, draw)
        targets = {"labels": torch.tensor([e["label"] for e in examples], dtype=torch.int64)} if "label" in examples[0] else {}
        return Batch(inputs, targets, example_ids(examples), lengths, float(len(examples)))

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        return LossTerms(self.losses(model(**batch.inputs).logits, batch.targets).sum())

    def losses(self, logits_BC: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The training loss of each row, float32 [B]."""
        return self.criterion(logits_BC.float(), targets["labels"])

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        logits_BC = model(**batch.inputs).logits.float()
        outputs = {
            "prediction": logits_BC.argmax(-1).cpu().numpy(),
            "probabilities": logits_BC.softmax(-1).cpu().numpy(),
        }
        if self.label_bias is not None:
            outputs["unbiased"] = outputs["prediction"]
            biased_BC = logits_BC + torch.tensor(self.label_bias, device=logits_BC.device)
            outputs["prediction"] = biased_BC.argmax(-1).cpu().numpy()
        losses = np.zeros(len(batch.example_ids))
        if batch.targets:
            losses = cross_entropy(logits_BC, batch.targets["labels"]).double().cpu().numpy()
            outputs["reference"] = batch.targets["labels"].cpu().numpy()
        return Scores(batch.example_ids.numpy(), losses, np.ones(len(losses)), outputs)

    def _unknown(self, columns: dict[str, pa.Array], index: int) -> DataError:
        label = columns["label"][index].as_py()
        known = ", ".join(self.label_names[:10]) + (", ..." if len(self.label_names) > 10 else "")
        return DataError(
            f"the label {label[:80]!r} does not occur in the train rows" if label else "the label is empty",
            where=place(columns, index),
            remedy=f"the labels are: {known}; correct or remove the row",
        )


def label_names_of(train: pa.Table) -> list[str]:
    """The sorted names of the train rows' labels; whole numbers in numeric order.

    Args:
        train: with the columns `label`, `file` and `row`.

    Raises:
        DataError: a label is empty, NaN or a fraction, or there is only one class.
    """

    def place_of(label: str | None) -> str:
        return place(train, pc.index(labels, label).as_py() if label is not None else pc.index(labels.is_null(), True).as_py())

    labels = train["label"]
    names = labels.unique().to_pylist()  # in the order in which they first occur
    for label in names:
        if not label:
            remedy = "correct or remove the row, or leave it out with data.where"
            raise DataError("the label is empty", where=place_of(label), remedy=remedy)
        if label.lower() in ("nan", "none", "null"):
            remedy = f"correct or remove the row; if this is the name of a class, rename it: data.label_map={{{label}: ...}}"
            raise DataError(f"the label is {label!r}", where=place_of(label), remedy=remedy)
    names = label_order(names)
    if all(_is_number(n) for n in names):
        fraction = next((n for n in names if float(n) != int(float(n))), None)
        if fraction is not None:
            raise DataError(
                f"the label {fraction!r} is a fraction",
                where=place_of(fraction),
                remedy="task=regression predicts numbers; classes are names or whole numbers",
            )
    if len(names) < 2:
        raise DataError(f"all {len(labels)} train rows have the label {names[0]!r}: there is nothing to tell apart")
    return names


def label_order(names: Sequence[str]) -> list[str]:
    """Sorted; numbers by their size."""
    names = sorted(names)
    return sorted(names, key=float) if all(_is_number(n) for n in names) else names


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
