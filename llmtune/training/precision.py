"""Chooses device and precision, and sets torch up so that equal runs give equal bits."""

import contextlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from llmtune.config.sections.training import HardwareConfig
from llmtune.errors import ResourceError
from llmtune.training import cpu

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """Where and how the numbers are computed.

    Attributes:
        device: of this process.
        precision: 'fp32', 'bf16' or 'fp16'; weights and optimizer state are float32 in any case.
    """

    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager:
        """Matrix products in the lower precision."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=DTYPES[self.precision])


def choose(hardware: HardwareConfig, *, precision: str, is_transformer: bool) -> Compute:
    """The device and precision that a config asks for.

    Args:
        hardware: names the device.
        precision: of training or of evaluation.
        is_transformer: recurrent nets gain nothing from bf16 on a CPU.

    Raises:
        ResourceError: the device is not there, or cannot compute in this precision.
    """
    has_cuda = torch.cuda.is_available()
    if hardware.device == "cuda" and not has_cuda:
        raise ResourceError("hardware.device=cuda, but torch sees no CUDA device", remedy="use hardware.device=auto or cpu")
    on_cuda = has_cuda and hardware.device != "cpu"
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    if precision == "auto":
        precision = _fast_precision(device, is_transformer=is_transformer)
    if precision == "fp16" and not on_cuda:
        raise ResourceError("fp16 needs a CUDA device", remedy="use bf16 or fp32 on the CPU")
    return Compute(device, precision)


def set_up(hardware: HardwareConfig, *, exact: bool) -> None:
    """Process-wide settings of torch; before the first operator runs."""
    _quieten()
    cpu.tune(compiles=hardware.compile)
    if hardware.num_threads is not None:
        torch.set_num_threads(hardware.num_threads)
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.benchmark = False
    if exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Filling every new block with NaN finds bugs in operators and costs more than the operators.
        torch.utils.deterministic.fill_uninitialized_memory = False


def _quieten() -> None:
    """transformers' own bars and hints would run into ours; what matters is told by us."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _fast_precision(device: torch.device, *, is_transformer: bool) -> str:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has_bf16_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if is_transformer and has_bf16_units else "fp32"
