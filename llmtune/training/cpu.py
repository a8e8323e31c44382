"""Settings of the process that make training on a CPU faster and change no promise: equal runs still give equal bits."""

import contextlib
import ctypes

import torch

from llmtune.training import dropout

# Of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**31 - 1


def tune() -> None:
    """Keep freed memory, treat numbers below 1e-38 as zero, and draw dropout masks cheaply. Before the first operator runs."""
    keep_freed_memory()
    # Adam's means of rows without gradient fade into such numbers, which take the processor a hundred times as long.
    torch.set_flush_denormal(True)
    dropout.install()


def keep_freed_memory() -> None:
    """Let glibc serve large blocks again from what was freed, instead of asking the kernel for new zeroed pages at each step.

    Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
