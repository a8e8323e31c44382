"""How the ranks part; what they do together is tested with two real ones (tests/faults/test_ranks.py)."""

from types import SimpleNamespace

import pytest
import torch

from llmtune.errors import DataError, DivergedError, Interrupted
from llmtune.training.distributed import Ranks


@pytest.fixture
def parting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a rank does when it leaves, in order."""
    done: list[str] = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: done.append("parts"))
    return done


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Interrupted("stopped", exit_code=143), ["waits", "parts"]),
        (DivergedError("nan"), ["waits", "parts"]),
        (DataError("on one rank alone"), ["parts"]),
        (KeyError("on one rank alone"), ["parts"]),
    ],
)
def test_what_stops_all_is_waited_for(parting: list[str], error: Exception, expected: list[str]):
    """A launcher ends the main rank, which still saves, once another rank has failed. Others may never come to meet."""
    ranks = Ranks(None)
    ranks._accelerator = SimpleNamespace(wait_for_everyone=lambda: parting.append("waits"))
    with pytest.raises(type(error)), ranks:
        raise error
    assert parting == expected


def test_success_is_not_waited_for(parting: list[str]):
    """The main rank may have hours of work left."""
    ranks = Ranks(None)
    ranks._accelerator = SimpleNamespace(wait_for_everyone=lambda: parting.append("waits"))
    with ranks:
        pass
    assert parting == ["parts"]


def test_one_process_meets_nobody(parting: list[str]):
    with pytest.raises(DivergedError), Ranks(None):
        raise DivergedError("nan")
    assert parting == []
