"""An ONNX graph with dynamic batch and length."""

import contextlib
import inspect
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmtune.config.sections.model import CHATS
from llmtune.errors import ModelError, ResourceError
from llmtune.export import Bundle
from llmtune.export.huggingface import copy_companions


class _Logits(nn.Module):
    """A model as a function from named tensors to logits."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        keeps_cache = "use_cache" in inspect.signature(self.model.forward).parameters
        options = {"use_cache": False} if keeps_cache else {}
        return self.model(**dict(zip(self.names, tensors, strict=True)), **options).logits


def write(bundle: Bundle, directory: Path, *, opset: int) -> None:
    """Trace the model and write model.onnx.

    Raises:
        ResourceError: onnx is not installed.
        ModelError: the architecture cannot be traced.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ResourceError("export=onnx needs the package onnx", remedy="pip install 'llmtune[onnx]'") from None
    example = _example(bundle)
    names = list(example)
    is_token_level = bundle.description["task"]["type"] in ("tagging", "causal_lm", "masked_lm", *CHATS)
    axes = {name: {0: "batch", 1: "length"} if name != "features" else {0: "batch"} for name in names}
    axes["logits"] = {0: "batch", 1: "length"} if is_token_level else {0: "batch"}
    try:
        with _quiet(), torch.inference_mode():
            # The tracing exporter: the newer one (dynamo=True) fails on nn.LSTM with a dynamic length.
            torch.onnx.export(
                _Logits(bundle.model, names).eval(),  # else the exporter leaves the model in training mode
                tuple(example.values()),
                directory / "model.onnx",
                input_names=names,
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=opset,
                dynamo=False,
            )
    except (MemoryError, OSError):
        raise
    except Exception as e:  # the exporter raises whatever lies beneath
        told = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ModelError(f"the model cannot be written as ONNX: {told}", remedy="leave it out with ~export.onnx") from None
    copy_companions(bundle, directory)


def session(directory: Path) -> Any:
    """An onnxruntime session on the CPU."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else it tells Microsoft the graph's names and hashes, and writes into HOME
    try:
        import onnxruntime
    except ImportError:
        raise ResourceError("export=onnx needs the package onnxruntime", remedy="pip install 'llmtune[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])


def _example(bundle: Bundle) -> dict[str, Tensor]:
    """Inputs to trace with: two rows of unlike length, so that nothing is taken for constant."""
    task = bundle.description["task"]
    if names := task.get("feature_names"):
        return {"features": torch.zeros(2, len(names))}
    length = min(7, task["max_length"])
    mask_BL = torch.ones(2, length, dtype=torch.int64)
    mask_BL[1, length // 2 + 1 :] = 0
    pad_token_id = task["pad_token_id"]
    ids_BL = torch.where(mask_BL == 1, 0 if pad_token_id else 1, pad_token_id)
    example = {"input_ids": ids_BL, "attention_mask": mask_BL}
    return {**example, "token_type_ids": torch.zeros_like(ids_BL)} if task["token_types"] else example


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of every shape that it looks at; parity decides whether the graph is right."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
