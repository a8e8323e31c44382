"""Frozen linear layers in 4 bits, as QLoRA has them below its updates. Dettmers et al. 2023. K: inputs, N: outputs.

Weights are always put into 4 bits on the CPU, so that all devices have the same. A model that is not going to train gets
the rounded numbers as floats instead: it is the same function, and updates can be merged into it.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmtune.config.sections.tuning import QloraTuning
from llmtune.errors import ModelError, ResourceError
from llmtune.tuning import frozen

BLOCK = 64  # weights that share a scale


def hold(model: nn.Module, names: list[str], tuning: QloraTuning) -> None:
    """Put linear layers into 4 bits, for training on top of them.

    Args:
        model: float32, on the CPU.
        names: of the layers.
        tuning: the kind of 4 bits.

    Raises:
        ModelError: a layer is none of torch's linear ones.
        ResourceError: bitsandbytes is not installed.
    """
    for name, layer in _linear(model, names):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, FourBitLinear(layer, tuning))


def round_off(model: nn.Module, names: list[str], tuning: QloraTuning) -> None:
    """Give linear layers the numbers that 4 bits leave of theirs; arguments and errors as of `hold`."""
    for _, layer in _linear(model, names):
        frozen.remember(layer)
        layer.weight.data = _floats(*_packed(layer.weight, tuning), torch.float32)


def num_weights(parameter: nn.Parameter) -> int:
    """How many weights a parameter stands for: of those in 4 bits, two share a byte."""
    return getattr(parameter, "num_weights", parameter.numel())


class FourBitLinear(nn.Linear):
    """A frozen linear layer that holds its weight in 4 bits, and makes floats of it at each use.

    Args:
        linear: the layer as it was, float32, on the CPU.
        tuning: the kind of 4 bits.
    """

    def __init__(self, linear: nn.Linear, tuning: QloraTuning):
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        frozen.remember(linear)
        self.digest_before = linear.digest_before
        packed, self._state = _packed(linear.weight, tuning)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.weight.num_weights = linear.weight.numel()
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., N], in autocast's type where it is on."""
        kind = x.device.type
        x = x.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype)
        return _Product.apply(x, self.weight, self._state, self.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        moved = super()._apply(fn, recurse)
        self._state.to(self.weight.device)
        return moved


class _Product(torch.autograd.Function):
    """x W' + bias; nothing but the 4 bits is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, state: Any, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(packed)
        ctx.state = state
        return F.linear(x, _floats(packed, state, x.dtype), None if bias is None else bias.to(x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (packed,) = ctx.saved_tensors
        return grad @ _floats(packed, ctx.state, grad.dtype), None, None, None


def _linear(model: nn.Module, names: list[str]) -> Iterator[tuple[str, nn.Linear]]:
    for name in names:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            message = f"tuning=qlora: the layers of {model.config.model_type} are none that bitsandbytes holds in 4 bits"
            raise ModelError(message, remedy="use tuning=lora, or a model with linear layers, such as a Llama")
        yield name, layer


def _packed(weight: Tensor, tuning: QloraTuning) -> tuple[Tensor, Any]:
    """A weight in 4 bits, two in a byte, and the scales that belong to them."""
    how = {"quant_type": tuning.quant_type, "compress_statistics": tuning.double_quant, "blocksize": BLOCK}
    return _functional().quantize_4bit(weight.detach(), **how)


def _floats(packed: Tensor, state: Any, dtype: torch.dtype) -> Tensor:
    state.dtype = dtype
    return _functional().dequantize_4bit(packed, state)


def _functional() -> Any:
    try:
        from bitsandbytes import functional
    except ImportError:
        raise ResourceError("tuning=qlora needs the package bitsandbytes", remedy="pip install 'llmtune[qlora]'") from None
    return functional
