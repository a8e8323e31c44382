"""GELU by way of tanh (Hendrycks and Gimpel 2016), as GPT-2, ALBERT and Gemma have it, in training on the CPU.

torch computes a slow tanh forwards and once more backwards; transformers' own form of it is eight operators with as many
tensors to keep. Here the slope is computed along with the value, while its parts are in the cache, and is all that is kept.
"""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import FastGELUActivation, GELUTanh, NewGELUActivation

# x * sigmoid(x (LINEAR + CUBIC x^2)) is the same function: (1 + tanh(y)) / 2 = sigmoid(2 y).
LINEAR = 2 * math.sqrt(2 / math.pi)
CUBIC = 0.044715 * LINEAR
AT_ONCE = 1 << 16  # numbers, so that what lies between stays in the cache


def install(model: nn.Module) -> None:
    """Let the activations of a model that are this function be ours while they train."""
    for module in model.modules():
        if type(module) in (FastGELUActivation, GELUTanh, NewGELUActivation):
            module.forward = partial(_gelu, module, module.forward)


def _gelu(module: nn.Module, plain: Any, x: Tensor) -> Tensor:
    if not module.training or x.device.type != "cpu":
        return plain(x)
    return _Gelu.apply(x) if x.dtype == torch.bfloat16 else F.gelu(x, approximate="tanh")  # which is as fast in float32


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        out, slope = torch.empty_like(x), torch.empty_like(x)
        linear = torch.tensor(LINEAR)
        parts = (t.view(-1).split(AT_ONCE) for t in (x, out, slope))
        for x_part, out_part, slope_part in zip(*parts, strict=True):
            x_part = x_part.float()
            inner = torch.addcmul(linear, x_part, x_part, value=CUBIC).mul_(x_part)
            steepness = torch.mul(x_part, -2 * LINEAR).add_(inner, alpha=3)  # x times the slope of inner
            share = inner.sigmoid_()
            out_part.copy_(x_part * share)
            slope_part.copy_(torch.addcmul(share, torch.addcmul(share, share, share, value=-1), steepness))
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return grad * slope
