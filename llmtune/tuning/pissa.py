"""PiSSA: low-rank updates that start from the largest singular values of the weights. Meng et al. 2024.

Of a weight W = U S V', the first R singular values become the update s B A, with s = alpha / R; what is left, W - s B A, is
frozen. The start of A and B is kept beside them, in checkpoints too: with it, the frozen rest follows from the weights as
they were read, on any machine, and an adapter for these weights can be written.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from llmtune.errors import CheckpointError
from llmtune.tuning import frozen

STARTS = ("start_A", "start_B")
ADAPTER = "default"  # peft's name for the only one


def begin(model: nn.Module) -> None:
    """Give low-rank layers that have been made so a moment ago their start, and take it off their frozen weights."""
    for _, layer in _layers(model):
        frozen.remember(layer.get_base_layer())
        weight, scale, rank = _weight(layer), layer.scaling[ADAPTER], layer.r[ADAPTER]
        u, s, vh = torch.linalg.svd(_oriented(layer, weight.detach()), full_matrices=False)
        roots = (s[:rank] / scale).sqrt()
        start_a, start_b = roots[:, None] * vh[:rank], u[:, :rank] * roots
        layer.register_buffer("start_A", start_a.contiguous(), persistent=False)
        layer.register_buffer("start_B", start_b.contiguous(), persistent=False)
        layer.lora_A[ADAPTER].weight.data.copy_(start_a)
        layer.lora_B[ADAPTER].weight.data.copy_(start_b)
        weight.data.sub_(_update(layer, layer.start_A, layer.start_B))


def starts(model: nn.Module) -> dict[str, Tensor]:
    """The start of every layer's A and B by name; empty for a model without."""
    return {
        f"{name}.{key}": getattr(layer, key)
        for name, layer in model.named_modules()
        if hasattr(layer, STARTS[0])
        for key in STARTS
    }


def set_starts(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Let the frozen weights be those for another start: a singular value decomposition differs between machines.

    Raises:
        CheckpointError: they are held in fewer bits than that would need.
    """
    for name, layer in model.named_modules():
        if not hasattr(layer, STARTS[0]):
            continue
        other = [tensors[f"{name}.{key}"].to(layer.start_A.device) for key in STARTS]
        if all(torch.equal(getattr(layer, key), given) for key, given in zip(STARTS, other, strict=True)):
            continue
        weight = _weight(layer)
        if weight.dtype != torch.float32:
            raise CheckpointError(
                "the singular values of the weights come out differently here than where the run was started",
                remedy="resume it with hardware.precision=fp32 and training.allow_drift=[precision,cpu]",
            )
        weight.data.add_(_update(layer, layer.start_A, layer.start_B)).sub_(_update(layer, *other))
        for key, given in zip(STARTS, other, strict=True):
            getattr(layer, key).copy_(given)


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _weight(layer: Any) -> nn.Parameter:
    return layer.get_base_layer().weight


def _oriented(layer: Any, matrix: Tensor) -> Tensor:
    """[outputs, inputs], which GPT-2's own layers have the other way round."""
    return matrix.T if layer.fan_in_fan_out else matrix


def _update(layer: Any, a: Tensor, b: Tensor) -> Tensor:
    """What A and B add to the weight, as it lies."""
    return _oriented(layer, layer.scaling[ADAPTER] * (b @ a))
