"""How much memory is in use; and when it runs out, what to free before the same is tried in smaller parts."""

import gc
import resource
from pathlib import Path

import torch


class OutOfMemory(Exception):
    """A micro-batch did not fit. The weights are those of the step before, and the failed computation is let go of."""


def free() -> None:
    """Give back what a failed computation has left, which lies in cycles of frames and tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Peak:
    """Highest memory use of this process since the last `reset`: of the GPU if it computes there, else resident memory."""

    def __init__(self, device: torch.device):
        self._device = device

    def reset(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def read(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_reserved(self._device)
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
