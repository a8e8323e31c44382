"""Batches made in this process or in others, which hand their errors over as they are."""

import contextlib
import os
import resource
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from llmtune.errors import LlmtuneError
from llmtune.failures import as_llmtune_error
from llmtune.tasks.base import Batch


def load(
    make: Callable[[Any], Batch], keys: Callable[[], Iterator[Any]], *, num_workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """The batch of each key, in their order.

    Args:
        make: a batch of its key alone.
        keys: begins the keys anew.
        num_workers: processes that call `make`; 0: this one does.
        pin_memory: for a faster way to a GPU.

    Raises:
        RuntimeError: a process was killed (see failures.py), or `make` failed there in a way unknown to us.
        LlmtuneError: that of `make`.
    """
    if num_workers == 0:
        return (batch.pin_memory() if pin_memory else batch for batch in map(make, keys()))
    _allow_open_files(512 + 8 * num_workers)
    with warnings.catch_warnings(), _threadless_tokenizers():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more processes than cores
        data, order = _Answers(make), _Keys(keys)
        answers = iter(DataLoader(data, sampler=order, batch_size=None, num_workers=num_workers, prefetch_factor=4))
    return (batch.pin_memory() if pin_memory else batch for batch in map(_unpacked, answers))


class _Keys(Sampler):
    def __init__(self, keys: Callable[[], Iterator[Any]]):
        self._keys = keys

    def __iter__(self) -> Iterator[Any]:
        return self._keys()


class _Answers(Dataset):
    """What a loader process sends: batches, or what went wrong.

    Errors go as they are, for torch would make others of them, and lose some. Tensors go as arrays: each tensor would take an
    open file and shared memory, of which there is little in a container.
    """

    def __init__(self, make: Callable[[Any], Batch]):
        self._make = make

    def __getitem__(self, key: Any) -> Batch | LlmtuneError | str:
        try:
            return _converted(self._make(key), Tensor.numpy)
        except BaseException as e:  # PanicException of tokenizers is no Exception
            return as_llmtune_error(e) or traceback.format_exc()


def _unpacked(answer: Batch | LlmtuneError | str) -> Batch:
    if isinstance(answer, LlmtuneError):
        raise answer
    if isinstance(answer, str):
        raise RuntimeError(f"in a loader process: {answer}")
    return _converted(answer, torch.from_numpy)


def _converted(batch: Batch, to: Callable) -> Batch:
    inputs, targets = ({name: to(values) for name, values in part.items()} for part in (batch.inputs, batch.targets))
    return Batch(inputs, targets, to(batch.example_ids), to(batch.lengths), batch.num_targets)


def _allow_open_files(number: int) -> None:
    """Use what the system allows: the usual limit of 1,024 is too low for 256 processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number if hard < 0 else min(number, hard), hard))


@contextlib.contextmanager
def _threadless_tokenizers() -> Iterator[None]:
    """A process that begins here lacks the threads that a tokenizer has used before; it would wait for them."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
