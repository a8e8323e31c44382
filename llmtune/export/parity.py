"""Whether an export gives what the checkpoint gives, on real rows, read back from disk."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmtune.config.sections.training import ExportConfig
from llmtune.errors import ModelError
from llmtune.export import Bundle, onnx
from llmtune.models import registry
from llmtune.tasks.base import Batch

TOLERANCE = 1e-4

Logits = Callable[[dict[str, Tensor]], np.ndarray]


def check(export: ExportConfig, bundle: Bundle, directory: Path, batches: Iterable[Batch]) -> dict[str, Any]:
    """Compare logits and argmax on every row.

    Returns:
        rows, max_difference, argmax_differences, tolerance: as parity.json tells them.

    Raises:
        ModelError: logits differ by more than the tolerance, or an argmax differs.
    """
    exported = {"huggingface": _loaded_again, "onnx": _onnx}[export.type](directory)
    task = bundle.description["task"]
    bias = np.array(task.get("label_bias", 0.0), dtype=np.float32)
    is_regression = task["type"] == "regression"
    border = float(np.log(task["threshold"] / (1 - task["threshold"]))) if task["type"] == "multilabel" else None
    rows, largest, flips = 0, 0.0, 0
    with torch.inference_mode():
        for batch in batches:
            ours, theirs = bundle.model(**batch.inputs).logits.numpy(), exported(batch.inputs)
            if ours.shape != theirs.shape:
                raise ModelError(f"the export gives {theirs.shape}, the checkpoint {ours.shape}", where=str(directory))
            if ours.ndim == 3:  # positions of padding are nobody's business
                valid = batch.inputs["attention_mask"].bool().numpy()
                ours, theirs = ours[valid], theirs[valid]
            scale = max(1.0, float(np.abs(ours).max())) if is_regression else 1.0
            largest = float(np.maximum(largest, np.abs(ours - theirs).max() / scale))  # max() would pass over NaN
            if border is not None:
                flips += _crossed(ours + bias, theirs + bias, border)
            elif not is_regression:
                flips += _flips(ours + bias, theirs + bias)
            rows += len(batch.example_ids)
    if not largest <= TOLERANCE or flips:
        found = f"by up to {largest:.2e} in the logits, {flips} other argmax in {rows} rows"
        raise ModelError(f"the export differs from the checkpoint: {found}", where=str(directory))
    return {"rows": rows, "max_difference": largest, "argmax_differences": flips, "tolerance": TOLERANCE}


def _flips(ours: np.ndarray, theirs: np.ndarray) -> int:
    """Rows with another argmax; a tie within the tolerance may fall either way."""
    mine, other = ours.argmax(-1), theirs.argmax(-1)
    gap = np.take_along_axis(ours, mine[..., None], -1) - np.take_along_axis(ours, other[..., None], -1)
    return int((gap[..., 0] > TOLERANCE).sum())


def _crossed(ours: np.ndarray, theirs: np.ndarray, border: float) -> int:
    """Labels on another side of the threshold; those at it within the tolerance may be on either."""
    return int((((ours >= border) != (theirs >= border)) & (np.abs(ours - border) > TOLERANCE)).sum())


def _loaded_again(directory: Path) -> Logits:
    model = registry.load(directory)
    return lambda inputs: model(**inputs).logits.numpy()


def _onnx(directory: Path) -> Logits:
    session = onnx.session(directory)
    names = {node.name for node in session.get_inputs()}
    return lambda inputs: session.run(["logits"], {k: v.numpy() for k, v in inputs.items() if k in names})[0]
