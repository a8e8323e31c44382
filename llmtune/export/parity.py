"""Whether an export gives what the checkpoint gives, on real rows, read back from disk."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtune.config.sections.training import ExportConfig
from llmtune.data import tokenizer as tokenizers
from llmtune.errors import ModelError
from llmtune.export import Bundle, gguf, onnx
from llmtune.models import gguf as gguf_files
from llmtune.models import registry
from llmtune.tasks.base import Batch
from llmtune.training.restore import restore

TOLERANCE = 1e-4


def check(export: ExportConfig, bundle: Bundle, directory: Path, batches: Iterable[Batch]) -> dict[str, Any]:
    """Compare logits and argmax on every row, and tokens where the export has a tokenizer of its own.

    Where an export rounds weights, it must give what the checkpoint gives with weights rounded so; how far that is from the
    checkpoint itself is told, too.

    Returns:
        rows, max_difference, argmax_differences, tolerance, and perhaps rounding with such differences: as parity.json tells
        them.

    Raises:
        ModelError: logits differ by more than the tolerance, an argmax differs, or a text has other tokens.
    """
    exported = READERS[export.type](directory)
    is_rounded = getattr(export, "outtype", "f32") != "f32"
    model = gguf.rounded(bundle.model, export.outtype) if is_rounded else bundle.model
    found, by_rounding = Difference.of(bundle), Difference.of(bundle)
    tokenizer = tokenizers.load(bundle.tokenizer_dir) if exported.tokenizer is not None else None
    rows = 0
    with torch.inference_mode():
        for batch in batches:
            theirs = exported.logits(batch.inputs)
            ours = model(**batch.inputs).logits.numpy()
            if ours.shape != theirs.shape:
                raise ModelError(f"the export gives {theirs.shape}, the checkpoint {ours.shape}", where=str(directory))
            valid = batch.inputs["attention_mask"].bool().numpy() if ours.ndim == 3 else ...  # of padding nobody cares
            found.add(ours[valid], theirs[valid])
            if is_rounded:
                by_rounding.add(bundle.model(**batch.inputs).logits.numpy()[valid], theirs[valid])
            if tokenizer is not None:
                _require_same_tokens(tokenizer, exported.tokenizer, batch.inputs["input_ids"], directory)
            rows += len(batch.example_ids)
    if not found.largest <= TOLERANCE or found.flips:
        how = f"by up to {found.largest:.2e} in the logits, {found.flips} other argmax in {rows} rows"
        raise ModelError(f"the export differs from the checkpoint: {how}", where=str(directory))
    return {
        "rows": rows,
        **found.told(),
        "tolerance": TOLERANCE,
        **({"rounding": {**by_rounding.told(), "answers": by_rounding.answers}} if is_rounded else {}),
    }


@dataclass
class Difference:
    """Between the logits of two models.

    Attributes:
        bias: added to logits before the largest is looked for.
        border: logit from which on a label is given, of several; None: the largest is given.
        is_regression: whether answers are numbers, of which differences are relative.
        largest: of a logit.
        flips: rows or tokens with another answer.
        answers: how many there are.
    """

    bias: np.ndarray
    border: float | None
    is_regression: bool
    largest: float = 0.0
    flips: int = 0
    answers: int = 0

    @classmethod
    def of(cls, bundle: Bundle) -> "Difference":
        """None yet, of a task's answers."""
        task = bundle.description["task"]
        bias = np.array(task.get("label_bias", 0.0), dtype=np.float32)
        border = float(np.log(task["threshold"] / (1 - task["threshold"]))) if task["type"] == "multilabel" else None
        return cls(bias, border, task["type"] == "regression")

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Compare logits [rows or tokens, outputs]."""
        scale = max(1.0, float(np.abs(ours).max())) if self.is_regression else 1.0
        self.largest = float(np.maximum(self.largest, np.abs(ours - theirs).max() / scale))  # max() would pass over NaN
        if self.border is not None:
            self.flips += _crossed(ours + self.bias, theirs + self.bias, self.border)
        elif not self.is_regression:
            self.flips += _flips(ours + self.bias, theirs + self.bias)
        self.answers += len(ours)

    def told(self) -> dict[str, Any]:
        """As parity.json has it."""
        return {"max_difference": self.largest, "argmax_differences": self.flips}


def _require_same_tokens(ours: Any, theirs: Any, ids_BL: Tensor, directory: Path) -> None:
    for text in ours.batch_decode(ids_BL):
        if ours(text)["input_ids"] != theirs(text)["input_ids"]:
            message = f"the export's tokenizer cuts a text in another way: {text[:200]!r}"
            raise ModelError(message, where=str(directory), remedy="train with tokenizer=bpe, or leave this export out")


def _flips(ours: np.ndarray, theirs: np.ndarray) -> int:
    """Rows with another argmax; a tie within the tolerance may fall either way."""
    mine, other = ours.argmax(-1), theirs.argmax(-1)
    gap = np.take_along_axis(ours, mine[..., None], -1) - np.take_along_axis(ours, other[..., None], -1)
    return int((gap[..., 0] > TOLERANCE).sum())


def _crossed(ours: np.ndarray, theirs: np.ndarray, border: float) -> int:
    """Labels on another side of the threshold; those at it within the tolerance may be on either."""
    return int((((ours >= border) != (theirs >= border)) & (np.abs(ours - border) > TOLERANCE)).sum())


@dataclass(frozen=True)
class Exported:
    """An export, read back.

    Attributes:
        logits: of inputs by name, as the model of a task takes them.
        tokenizer: where the export's is no copy of the checkpoint's.
    """

    logits: Callable[[dict[str, Tensor]], np.ndarray]
    tokenizer: Any = None


def _huggingface(directory: Path) -> Exported:
    model = registry.load(directory)
    return Exported(lambda inputs: model(**inputs).logits.numpy())


def _adapter(directory: Path) -> Exported:
    model = restore(directory).model.eval()
    return Exported(lambda inputs: model(**inputs).logits.numpy())


def _onnx(directory: Path) -> Exported:
    session = onnx.session(directory)
    names = {node.name for node in session.get_inputs()}
    return Exported(lambda inputs: session.run(["logits"], {k: v.numpy() for k, v in inputs.items() if k in names})[0])


def _gguf(directory: Path) -> Exported:
    model, tokenizer = gguf_files.load(directory / gguf.FILE)
    return Exported(lambda inputs: model(**inputs).logits.numpy(), tokenizer)


READERS = {"huggingface": _huggingface, "adapter": _adapter, "onnx": _onnx, "gguf": _gguf}
