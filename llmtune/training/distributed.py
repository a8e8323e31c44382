"""One or several processes: who this one is, and sums over all of them. accelerate does the work."""

import contextlib
import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from llmtune.training.precision import Compute


class Ranks:
    """The processes of a run. Under `accelerate launch` or torchrun there are several, else this one alone."""

    def __init__(self, compute: Compute):
        self.rank, self.size = 0, 1
        self._device = compute.device
        self._accelerator: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # accelerate costs import time that a single process does not need.
            from accelerate import Accelerator

            self._accelerator = Accelerator(cpu=compute.device.type == "cpu", gradient_accumulation_steps=1)
            self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def prepare(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that gradients are averaged over the ranks."""
        return model if self._accelerator is None else self._accelerator.prepare_model(model)

    def no_sync(self, model: nn.Module, *, until_last: bool) -> AbstractContextManager:
        """Leave out the exchange of gradients for all but the last micro-batch."""
        if self._accelerator is None or not until_last:
            return contextlib.nullcontext()
        return self._accelerator.no_sync(model)

    def sum(self, value: float) -> float:
        return value if self._accelerator is None else self.sums([value])[0]

    def sums(self, values: list) -> list:
        """Each value summed over all ranks."""
        if self._accelerator is None:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self._device)
        kind = type(values[0])
        return [kind(v) for v in self._accelerator.reduce(total, reduction="sum").tolist()]

    def broadcast(self, value: Any) -> Any:
        """The main process's JSON-like value, on every rank."""
        if self._accelerator is None:
            return value
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
