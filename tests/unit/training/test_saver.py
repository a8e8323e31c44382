"""The rest of a save goes on beside training: it is waited for, its failure is told, and it holds what was, not what came."""

import threading
from dataclasses import replace

import pytest
import torch

from llmtune.errors import ResourceError
from llmtune.training import checkpoint
from llmtune.training.saver import Saver
from tests.unit.training.test_checkpoint import state

SECONDS = 10.0


@pytest.fixture
def held(monkeypatch) -> threading.Event:
    """Set it to let saves be sealed."""
    released, seal = threading.Event(), checkpoint.seal

    def later(written):
        assert released.wait(SECONDS)
        return seal(written)

    monkeypatch.setattr(checkpoint, "seal", later)
    return released


def saver_in(folder, *, keep=2, is_newest_best=True) -> Saver:
    return Saver(folder / "checkpoints", keep=keep, is_newest_best=is_newest_best)


def test_training_goes_on_before_the_save_is_complete(tmp_path, held):
    moment = torch.zeros(3)
    with saver_in(tmp_path) as saver:
        saver.save(replace(state(), optimizer={"w.exp_avg": moment}), step=1)
        assert saver.step == 1 and not checkpoint.steps(saver.directory)
        saver.settle(waits=False)
        moment += 1
        held.set()
    ((step, path),) = checkpoint.steps(saver.directory)
    checkpoint.verify(path)
    assert step == 1 and not checkpoint.read_tensors(path / "optimizer.safetensors")["w.exp_avg"].any()
    assert (saver.directory / "latest").resolve() == (saver.directory / "best").resolve() == path.resolve()


def test_saves_come_one_after_another_and_the_oldest_go(tmp_path):
    with saver_in(tmp_path, is_newest_best=False) as saver:
        for step in (1, 2, 3, 4):
            saver.save(state(), step=step)
            if step == 1:
                saver.settle()
                saver.point_best(1)
    assert [step for step, _ in checkpoint.steps(saver.directory)] == [1, 3, 4]
    assert (saver.directory / "latest").readlink().name == "step-000004"


@pytest.mark.parametrize("how", ["settle", "save", "poll"])
def test_a_failure_is_told_at_the_next_occasion_and_once(tmp_path, monkeypatch, how):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with saver_in(tmp_path) as saver:
        saver.save(state(), step=1)
        saver.settle()
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.manifest, "write", full)
            saver.save(state(), step=2)
            saver.__exit__()  # waits, and leaves the telling to what comes
        with pytest.raises(ResourceError, match="step 2 .*No space left"):
            {"settle": saver.settle, "poll": lambda: saver.settle(waits=False)}.get(how, lambda: saver.save(state(), step=3))()
        saver.settle()
    assert [step for step, _ in checkpoint.steps(saver.directory)] == [1]
    assert not list(saver.directory.glob(".*"))
