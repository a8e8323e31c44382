"""One or several processes: who this one is, and sums over all of them. accelerate does the work."""

import contextlib
import gc
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from llmtune.config.sections.training import HardwareConfig
from llmtune.errors import DivergedError, Interrupted, LlmtuneError

# Seconds for the connection's thread to let go of sums that a lost rank has broken off. It takes the interpreter's lock for
# that; a model that is freed before holds the lock and waits for the thread, and both for ever.
LETS_GO = 1.0


class Ranks:
    """The processes of a run. Under `accelerate launch` or torchrun there are several, else this one alone.

    Entered for as long as they work together. Every method but `is_main` and `prepare` is a meeting point: all ranks have to
    call it, in the same order.
    """

    def __init__(self, hardware: HardwareConfig):
        self.rank, self.size = 0, 1
        self._accelerator: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            # accelerate costs import time that a single process does not need.
            from accelerate import Accelerator

            on_cpu = hardware.device == "cpu" or not torch.cuda.is_available()
            self._accelerator = Accelerator(cpu=on_cpu, gradient_accumulation_steps=1)
            self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Part from the others. Not waited for is the main rank's further work; waited for is its last save.

        A launcher ends all ranks as soon as one of them has failed.
        """
        if self._accelerator is not None:
            if kind is not None and issubclass(kind, DivergedError | Interrupted):  # all ranks raise these
                self.wait()
            elif kind is not None:
                time.sleep(LETS_GO)
            gc.collect()  # wrapped models hold on to the connection, and its threads abort a process that ends before them
            torch.distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def prepare(self, model: nn.Module, *, opens_later: bool = False) -> nn.Module:
        """Wrap a model so that gradients are averaged over the ranks.

        Args:
            model: all weights that will ever learn are open.
            opens_later: whether some of them will have no gradient for a while.
        """
        if self._accelerator is None:
            return model
        if opens_later:
            from accelerate import DistributedDataParallelKwargs

            self._accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        return self._accelerator.prepare_model(model)

    def no_sync(self, model: nn.Module, *, until_last: bool) -> AbstractContextManager:
        """Leave out the exchange of gradients for all but the last micro-batch."""
        if self._accelerator is None or not until_last:
            return contextlib.nullcontext()
        return self._accelerator.no_sync(model)

    def sum(self, value: float) -> float:
        return self.sums([value])[0]

    def sums(self, values: list) -> list:
        """Each value summed over all ranks."""
        if self._accelerator is None:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        torch.distributed.all_reduce(total)
        kind = type(values[0])
        return [kind(v) for v in total.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The value of each rank, in their order: something small."""
        if self._accelerator is None:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def largest(self, value: int) -> int:
        if self._accelerator is None:
            return value
        total = torch.tensor(value, device=self._accelerator.device)
        torch.distributed.all_reduce(total, torch.distributed.ReduceOp.MAX)
        return int(total)

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What `make` gives on the main rank, on every rank: something like JSON. If it fails there, the others end quietly."""
        if self._accelerator is None:
            return make()
        from accelerate.utils import broadcast_object_list

        made, failure = None, None
        if self.is_main:
            try:
                made = make()
            except LlmtuneError as e:
                failure = e
        box = [made, failure and failure.exit_code]
        broadcast_object_list(box)
        if failure is not None:
            raise failure
        if box[1] is not None:
            raise SystemExit(box[1])
        return box[0]

    def main_first(self, make: Callable[[], Any]) -> Any:
        """What `make` gives here, after the main rank is done with it: the others find what it has left on the disk."""
        kept: list[Any] = []
        self.from_main(lambda: kept.append(make()))
        return kept[0] if kept else make()

    def wait(self) -> None:
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
