"""Dropout on the CPU from a quarter of the random numbers: torch draws one 64-bit number for each element, one at a time.

Here each draw serves four elements, 16 bits each; the probability is rounded to 1/65536, and the scale fits the rounded one.
The numbers come from torch's default generator, so that they are keyed by its seed and by nothing else.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LEVELS = 1 << 16
_library: torch.library.Library | None = None


def install() -> None:
    """Let every dropout on the CPU be ours, those inside torch's and transformers' modules included."""
    global _library
    if _library is None:
        _library = torch.library.Library("aten", "IMPL")
        _library.impl("dropout", dropout, "AutogradCPU")


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Zero elements with probability p and scale the others by 1 / (1 - p), as torch.dropout does."""
    if not train or p == 0.0 or not input.numel():
        return input
    return _Dropout.apply(input, p)


def mask(shape: Sequence[int], p: float, dtype: torch.dtype) -> Tensor:
    """Zeros with probability p, and 1 / (1 - p) elsewhere."""
    kept, factor = zeros_and_ones(shape, p, dtype)
    return kept.mul_(factor)


def zeros_and_ones(shape: Sequence[int], p: float, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Zeros with probability p and ones elsewhere, and 1 / (1 - p), or 1 where all are zeros."""
    dropped, num_elements = round(p * LEVELS), torch.Size(shape).numel()
    if dropped == LEVELS:
        return torch.zeros(shape, dtype=dtype), 1.0
    bits = torch.empty((num_elements + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    draws = bits.view(torch.int16)[:num_elements].view(shape)
    # Comparing into the wanted type is several times faster than converting booleans.
    kept = torch.ge(draws, dropped - LEVELS // 2, out=torch.empty(shape, dtype=dtype))
    return kept, LEVELS / (LEVELS - dropped)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, p: float) -> Tensor:
        kept = mask(input.shape, p, input.dtype)
        ctx.save_for_backward(kept)
        return input * kept

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return grad * kept, None
