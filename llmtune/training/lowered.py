"""Frozen linear layers of a model that trains in bfloat16 on the CPU hold their weights in bfloat16.

Autocast would convert them at every use and keep the copies for the backward pass: the numbers are the same. Whoever evaluates
gets the weights back as they were read (`whole`), from a file without a name; checkpoints and exports never see them.
"""

import contextlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from llmtune.training import cpu


def product_dtype(x: Tensor) -> torch.dtype:
    """The type in which a linear layer multiplies this input: autocast's, or its own."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class Lowered:
    """The frozen weights of a model's linear layers, in bfloat16 from now on.

    Args:
        model: opened for tuning, on the CPU; trained under autocast and evaluated within `whole` alone.
        keep_in: a folder on whose disk the weights are kept as they were; None where nobody will ask for them.

    Raises:
        OSError: the disk has no room.
    """

    def __init__(self, model: nn.Module, *, keep_in: Path | None):
        owners: dict[int, list[nn.Module]] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(module)
        # DoRA looks at the weights themselves, not at their product alone, which is all that autocast converts.
        looked_at = {m.base_layer for m in model.modules() if getattr(m, "lora_variant", None)}
        linear = [m for m in model.modules() if type(m) is nn.Linear and m not in looked_at]
        found = [m for m in linear if _is_frozen_float32(m.weight)]
        shared = [m for m in found if len(owners[id(m.weight)]) > 1]
        self._whole: list[tuple[nn.Linear, nn.Parameter]] = [(m, m.weight) for m in shared]  # as a table of word vectors
        self._alone = [m for m in found if len(owners[id(m.weight)]) == 1]
        self._is_kept = keep_in is not None
        self._map = _written([m.weight for m in self._alone], keep_in) if keep_in is not None else None
        self._low: list[tuple[nn.Linear, nn.Parameter]] = []
        for module in found:
            self._low.append((module, _frozen(module.weight.bfloat16())))
            module.weight = self._low[-1][1]
        for parameter in model.parameters():
            if _is_frozen_float32(parameter):  # or the whole file that it was read from would stay mapped for its sake
                parameter.data = parameter.data.clone()
        cpu.give_back_freed_memory()

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Let the weights be what they were, for as long as nobody trains."""
        assert self._is_kept, "nobody was to ask for the weights"
        start, mapped = 0, []
        for module in self._alone:
            shape = module.weight.shape
            weight = torch.frombuffer(self._map, dtype=torch.float32, count=shape.numel(), offset=start).view(shape)
            mapped.append((module, _frozen(weight)))
            start += 4 * shape.numel()
        _set([*self._whole, *mapped])
        try:
            yield
        finally:
            _set(self._low)
            if self._map is not None:
                self._map.madvise(mmap.MADV_DONTNEED)


def _is_frozen_float32(weight: nn.Parameter) -> bool:
    return not weight.requires_grad and weight.dtype == torch.float32


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _set(weights: list[tuple[nn.Linear, nn.Parameter]]) -> None:
    for module, weight in weights:
        module.weight = weight


def _written(weights: list[nn.Parameter], folder: Path) -> mmap.mmap | None:
    """A file without a name that holds these weights one after the other, mapped; None for none of them."""
    size = sum(4 * weight.numel() for weight in weights)
    if not size:
        return None
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here and not later
        for weight in weights:
            file.write(weight.detach().contiguous().view(-1).numpy())
        file.flush()
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
