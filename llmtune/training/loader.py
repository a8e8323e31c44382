"""Batches made in this process or in others, which hand their errors over as they are."""

import atexit
import contextlib
import os
import resource
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
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
    others = set(active_children())
    with warnings.catch_warnings(), _threadless_tokenizers():
        warnings.filterwarnings("ignore", message="This DataLoader will create")  # more processes than cores
        data, how = _Answers(make), {"num_workers": num_workers, "prefetch_factor": 4, "worker_init_fn": _heed_the_run_alone}
        answers = iter(DataLoader(data, sampler=_Keys(keys), batch_size=None, **how))
    processes = set(active_children()) - others
    atexit.register(_end, processes)
    return _unpacked(answers, processes, pin_memory=pin_memory)


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


def _unpacked(answers: Any, processes: set[BaseProcess], *, pin_memory: bool) -> Iterator[Batch]:
    answer = None
    try:
        for answer in answers:
            if isinstance(answer, LlmtuneError):
                raise answer
            if isinstance(answer, str):
                raise RuntimeError(f"in a loader process: {answer}")
            batch = _converted(answer, torch.from_numpy)
            yield batch.pin_memory() if pin_memory else batch
    except RuntimeError as e:
        killed = next((process for process in processes if (process.exitcode or 0) < 0), None)
        if killed is None:
            raise
        how = signal.strsignal(-killed.exitcode)  # which torch tells only if it saw it happen
        raise RuntimeError(f"DataLoader worker (pid {killed.pid}) is killed by signal: {how}") from e
    finally:
        answers._shutdown_workers()  # else torch does so once nothing refers to it, such as the traceback of an error
        del answer  # which would refer to itself


def _converted(batch: Batch, to: Callable) -> Batch:
    inputs, targets = ({name: to(values) for name, values in part.items()} for part in (batch.inputs, batch.targets))
    return Batch(inputs, targets, to(batch.example_ids), to(batch.lengths), batch.num_targets)


def _heed_the_run_alone(number: int) -> None:
    """Signals that reach all processes at once are the run's to answer: it saves, and needs its batches until then."""
    for sent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent, signal.SIG_IGN)


def _end(processes: set[BaseProcess]) -> None:
    """When Python shuts down: torch would wait five seconds for each of them, and multiprocessing for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would call it an error
    for process in processes:
        process.kill()


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
