"""Low-rank updates on the CPU as one function for each layer, instead of a dozen operators of peft's with copies of their own.

What is computed is peft's: x W' + bias + (alpha / r) dropout(x) A' B', under autocast in its type. Frozen weights are held in
that type (`lowered.py`), the layer's input is kept once, and a gated MLP keeps its gate and its other half alone, of which
it makes the input of its last layer once more in the backward pass. T: tokens, K: inputs, N: outputs, R: rank.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import SiLUActivation

from llmtune.training import dropout as dropouts
from llmtune.training import norm
from llmtune.training.lowered import product_dtype

# Their MLP is down(silu(gate(x)) * up(x)), their norm x / rms(x) * weight, and what reads it are linear layers alone. Their
# attention calls apply_rotary_pos_emb(query, key, cos, sin), which turns the halves of each head against each other.
LLAMA_LIKE = {"llama", "mistral", "qwen2", "smollm3"}


def install(model: nn.Module) -> None:
    """Let the layers that peft has given low-rank updates be ours while they train; where peft did not, nothing happens.

    Args:
        model: opened for tuning, on the CPU.
    """
    try:
        from peft.tuners.lora import Linear
    except ImportError:
        return
    ours = {module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)}
    for layer in ours:
        layer.forward = partial(_layer, layer, layer.forward)
    if not ours or model.config.model_type not in LLAMA_LIKE:
        return
    norm.install(model)
    for module in model.modules():
        if _is_gated(module) and module.down_proj in ours:
            module.forward = partial(_gated_mlp, module, module.forward)


def _is_plain(layer: Any) -> bool:
    """Whether a layer of peft's is one frozen linear layer with one update of the simplest kind."""
    base, names = layer.base_layer, list(layer.lora_A)
    return (
        type(base) is nn.Linear
        and not any(p.requires_grad for p in base.parameters())
        and layer.active_adapters == names
        and len(names) == 1
        and not layer.lora_variant
        and layer.lora_B[names[0]].bias is None
    )


def _is_gated(module: Any) -> bool:
    parts = [name for name, _ in module.named_children()]
    return {"gate_proj", "up_proj", "down_proj", "act_fn"} == set(parts) and isinstance(module.act_fn, nn.SiLU | SiLUActivation)


def _layer(layer: Any, plain: Any, x: Tensor) -> Tensor:
    """As peft's layer [..., K] -> [..., N]; its own forward where it does not train."""
    if not layer.training or layer.merged or layer.disable_adapters:
        return plain(x)
    x = x.to(product_dtype(x))
    weights, scaling, p = _parts(layer, x.dtype)
    keep, scaling = _mask(x, p, scaling)
    with torch.autocast("cpu", enabled=False):
        return _Layer.apply(x, keep, *weights, scaling)


def _gated_mlp(module: Any, plain: Any, x: Tensor) -> Tensor:
    """down(silu(gate(x)) * up(x))."""
    layer = module.down_proj
    if not layer.training or layer.merged or layer.disable_adapters:
        return plain(x)
    gate, up = module.gate_proj(x), module.up_proj(x)
    weights, scaling, p = _parts(layer, gate.dtype)
    keep, scaling = _mask(gate, p, scaling)
    with torch.autocast("cpu", enabled=False):
        return _GatedLayer.apply(gate, up, keep, *weights, scaling)


def _parts(layer: Any, dtype: torch.dtype) -> tuple[tuple[Tensor | None, ...], float, float]:
    """Weight and bias of the frozen layer, A and B, in one type; the scale of the update, and the share to drop before it."""
    (name,) = layer.lora_A
    base = layer.base_layer
    tensors = base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight
    dropout = layer.lora_dropout[name]
    p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    return tuple(None if t is None else t.to(dtype) for t in tensors), layer.scaling[name], p


def _mask(x: Tensor, p: float, scaling: float) -> tuple[Tensor | None, float]:
    """Ones and zeros, and the scale of the update times what makes up for the zeros."""
    if p == 0.0:
        return None, scaling
    keep, factor = dropouts.zeros_and_ones(x.shape, p, x.dtype)
    return keep, scaling * factor


def _forward(
    x: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Output [T, N], and scaled x A' [T, R]."""
    inner = ((x if keep is None else x * keep) @ a.T).mul_(scaling)
    return F.linear(x, weight, bias).addmm_(inner, b.T), inner


def _backward(
    grad: Tensor, x: Tensor, keep: Tensor | None, weight: Tensor, a: Tensor, b: Tensor, inner: Tensor, scaling: float
):
    """Gradients of x, A and B."""
    grad_inner = (grad @ b).mul_(scaling)
    grad_a = grad_inner.T @ (x if keep is None else x * keep)
    grad_x = grad @ weight
    if keep is None:
        grad_x.addmm_(grad_inner, a)
    else:
        grad_x.addcmul_(grad_inner @ a, keep)
    return grad_x, grad_a, grad.T @ inner


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, keep, weight, bias, a, b, scaling: float) -> Tensor:
        shape = x.shape
        x, keep = _flat(x), _flat(keep)
        out, inner = _forward(x, keep, weight, bias, a, b, scaling)
        ctx.save_for_backward(x, keep, weight, a, b, inner)
        ctx.shape, ctx.scaling = shape, scaling
        return out.view(*shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, keep, weight, a, b, inner = ctx.saved_tensors
        grad_x, grad_a, grad_b = _backward(_flat(grad), x, keep, weight, a, b, inner, ctx.scaling)
        return grad_x.view(ctx.shape), None, None, None, grad_a, grad_b, None


class _GatedLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, keep, weight, bias, a, b, scaling: float) -> Tensor:
        shape = gate.shape
        gate, up, keep = _flat(gate), _flat(up), _flat(keep)
        out, inner = _forward(F.silu(gate).mul_(up), keep, weight, bias, a, b, scaling)
        ctx.save_for_backward(gate, up, keep, weight, a, b, inner)
        ctx.shape, ctx.scaling = shape, scaling
        return out.view(*shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, keep, weight, a, b, inner = ctx.saved_tensors
        silu = F.silu(gate)
        grad_x, grad_a, grad_b = _backward(_flat(grad), silu * up, keep, weight, a, b, inner, ctx.scaling)
        grad_up = silu.mul_(grad_x)
        grad_gate = torch.ops.aten.silu_backward(grad_x.mul_(up), gate)
        return grad_gate.view(ctx.shape), grad_up.view(ctx.shape), None, None, None, grad_a, grad_b, None


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.reshape(-1, x.shape[-1])
