"""What the weights that do not learn are known by: a checkpoint of the others is only good on top of the same ones."""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


def remember(layer: Any) -> None:
    """Keep the sha256 of a layer's weight, which is about to be changed in a way that can be done again."""
    layer.digest_before = hashlib.sha256(_bytes(layer.weight)).digest()


def digest(model: nn.Module) -> str:
    """sha256 over the weights that do not learn, as they were read."""
    found = hashlib.sha256()
    before = {f"{name}.weight": layer.digest_before for name, layer in model.named_modules() if hasattr(layer, "digest_before")}
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            found.update(name.encode())
            found.update(before[name] if name in before else _bytes(parameter))
    return found.hexdigest()


def _bytes(weight: Tensor) -> Any:
    return weight.detach().cpu().contiguous().view(torch.uint8).numpy()
