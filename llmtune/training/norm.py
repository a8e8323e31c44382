"""The norm of Llama and its like (RMSNorm, Zhang and Sennrich 2019) on the CPU, as one function that keeps its input alone.

T: tokens, H: hidden size.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmtune.training.lowered import product_dtype


def install(model: nn.Module) -> None:
    """Let the norms of a Llama-like model, which linear layers alone read, be ours while they train."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.forward = partial(_norm, module, module.forward)


def _norm(module: Any, plain: Any, x: Tensor) -> Tensor:
    """x / rms(x) * weight; under autocast in its type, since every reader would convert it."""
    if not module.training or x.dtype != torch.float32:
        return plain(x)
    return _Norm.apply(x, module.weight, module.variance_epsilon, product_dtype(x))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        grad = grad.float()
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * x * inverse).flatten(0, -2).sum(0)
        scaled = grad * weight
        share = torch.linalg.vecdot(scaled, x).unsqueeze(-1).mul_(inverse.square()).div_(x.shape[-1])
        return scaled.addcmul_(x, share, value=-1).mul_(inverse), grad_weight, None, None
