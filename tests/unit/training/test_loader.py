"""Batches from other processes: the same, with their errors as they were."""

import os
import signal

import pytest
import torch

from llmtune.errors import DataError, ResourceError
from llmtune.failures import as_llmtune_error
from llmtune.tasks.base import Batch
from llmtune.training import loader


class PanicException(BaseException):
    """As that of tokenizers: neither an Exception nor to be sent to another process."""

    def __reduce__(self):
        raise TypeError("cannot be pickled")


def batch(key: int) -> Batch:
    ids = torch.arange(key + 1)
    return Batch({"input_ids": ids[None]}, {"labels": -ids}, ids, ids + 1, float(key))


def load(make, *, keys=range(8), num_workers: int = 2) -> list[Batch]:
    return list(loader.load(make, lambda: iter(keys), num_workers=num_workers, pin_memory=False))


def test_the_same_batches_in_order():
    for ours, theirs in zip(load(batch, num_workers=0), load(batch), strict=True):
        assert torch.equal(ours.inputs["input_ids"], theirs.inputs["input_ids"]) and ours.num_targets == theirs.num_targets
        assert torch.equal(ours.targets["labels"], theirs.targets["labels"])
        assert torch.equal(ours.example_ids, theirs.example_ids) and torch.equal(ours.lengths, theirs.lengths)
        theirs.inputs["input_ids"][0] = 5  # may be changed, as any other


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_ours_stays_whole(num_workers: int):
    def make(key: int) -> Batch:
        if key == 3:
            raise DataError("the row is odd", where="rows.csv:4", remedy="correct it")
        return batch(key)

    with pytest.raises(DataError) as caught:
        load(make, num_workers=num_workers)
    assert str(caught.value) == "the row is odd\nat: rows.csv:4\ntry: correct it"


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device", "cache")])
def test_a_system_error_is_what_it_is_elsewhere(error: Exception):
    def make(key: int) -> Batch:
        raise error

    with pytest.raises(ResourceError) as caught:
        load(make)
    assert str(caught.value) == str(as_llmtune_error(error))


@pytest.mark.parametrize("error", [ValueError("a bug"), PanicException("a bug")])
def test_a_bug_is_told_with_its_place(error: BaseException):
    def make(key: int) -> Batch:
        raise error

    with pytest.raises(RuntimeError, match="a bug") as caught:
        load(make)
    assert "test_loader.py" in str(caught.value) and as_llmtune_error(caught.value) is None


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_process_is_told(sent: signal.Signals, capfd: pytest.CaptureFixture):
    def make(key: int) -> Batch:
        if key == 3:
            os.kill(os.getpid(), sent)
        return batch(key)

    with pytest.raises(RuntimeError) as caught:
        load(make)
    error = as_llmtune_error(caught.value)
    assert isinstance(error, ResourceError) and "was killed by a signal" in error.message and "num_workers" in error.remedy
    assert ("memory" in error.message) == (sent == signal.SIGKILL)


def test_threads_of_tokenizers_are_as_before(monkeypatch: pytest.MonkeyPatch):
    name = "TOKENIZERS_PARALLELISM"

    def make(key: int) -> Batch:
        assert os.environ[name] == "false"
        return batch(key)

    monkeypatch.delenv(name, raising=False)
    load(make)
    assert name not in os.environ
    monkeypatch.setenv(name, "true")
    load(make)
    assert os.environ[name] == "true"
