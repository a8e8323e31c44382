"""Rotary positions (Su et al. 2021) of Llama and its like on the CPU as one function, in bfloat16 outside of the cache.

transformers' own form computes in float32 by operators on the whole batch, and hands float32 on to the products, which convert
it. The numbers are the same. B: texts, H: heads, L: tokens, D: width of a head.
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llmtune.training.low_rank import LLAMA_LIKE
from llmtune.training.lowered import product_dtype

NAME = "apply_rotary_pos_emb"


def install(model: nn.Module) -> None:
    """Let the rotation of a Llama-like model be ours while it trains in bfloat16: that of its module, for all of the kind."""
    if getattr(getattr(model, "config", None), "model_type", None) not in LLAMA_LIKE:
        return
    attentions = {type(module) for module in model.modules() if type(module).__name__.endswith("Attention")}
    for home in {sys.modules[kind.__module__] for kind in attentions}:
        plain = getattr(home, NAME, None)
        if plain is not None and not isinstance(plain, partial):
            setattr(home, NAME, partial(_rotated, plain))


def _rotated(plain: Any, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Query and key [B, H, L, D], turned by the angles [B or 1, L, D] of their places."""
    is_ours = query.device.type == "cpu" and query.dtype == torch.bfloat16 == product_dtype(query) and unsqueeze_dim == 1
    if not (is_ours and query.requires_grad and cos.dtype == torch.float32):
        return plain(query, key, cos, sin, unsqueeze_dim=unsqueeze_dim)
    return _Rotation.apply(query, cos, sin), _Rotation.apply(key, cos, sin)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, out=torch.empty(x.shape, dtype=x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        texts, heads, length, width = grad.shape
        out = torch.empty(texts, length, heads, width, dtype=grad.dtype).transpose(1, 2)  # as the layer before it reads it
        return _turned(grad, cos, -sin, out=out), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, *, out: Tensor) -> Tensor:
    """x cos + (-x2, x1) sin, where x1 and x2 are the halves of x; text by text."""
    half = x.shape[-1] // 2
    signed = torch.cat([-sin[..., :half], sin[..., half:]], -1)
    for text, turned in enumerate(out):
        angles = text if len(cos) > 1 else 0
        part = torch.empty(turned.shape, dtype=torch.float32).copy_(x[text])
        exchanged = torch.cat([part[..., half:], part[..., :half]], -1)
        turned.copy_(part.mul_(cos[angles]).addcmul_(exchanged, signed[angles]))
    return out
