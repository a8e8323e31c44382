"""Settings of the process that make training on a CPU faster and change no promise: equal runs still give equal bits."""

import contextlib
import ctypes
import os

import torch

from llmtune.training import attention, dropout

# Of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 2**31 - 1


def tune(*, compiles: bool) -> None:
    """Keep freed memory, treat numbers below 1e-38 as zero, and make dropout cheap. Before the first operator runs.

    The compiler makes dropout cheap itself, cannot print ours (aten.random.from is no Python), and would find graphs with
    torch's in its cache on the disk.
    """
    keep_freed_memory()
    # Each shape of a batch leaves prepared kernels behind: without a bound, memory grows for thousands of steps.
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, "64")
    # Adam's means of rows without gradient fade into such numbers, which take the processor a hundred times as long.
    torch.set_flush_denormal(True)
    if not compiles:
        dropout.install()
        attention.install()


def keep_freed_memory() -> None:
    """Let glibc serve large blocks again from what was freed, instead of asking the kernel for new zeroed pages at each step.

    Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Let the kernel have what is freed, once, where much of it will not be used in the same pieces again."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
