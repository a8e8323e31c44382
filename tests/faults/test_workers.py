"""Loader processes that are killed, that are many, that outlive their parent, or that use a tokenizer."""

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests.faults.processes import TRAIN, children, ended, is_alive, num_steps, start, wait_until
from tests.pipeline.conftest import Folder, sha256
from tests.pipeline.test_resume import assert_equal_ends

NUM_ROWS = 400
WORKERS = "hardware.num_workers=2"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (signal.SIGKILL, "(Killed), most likely since memory ran out"),
        pytest.param(signal.SIGSEGV, "(Segmentation fault)", marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_ends_the_run(whole: Folder, mine: Folder, sent: signal.Signals, words: str):
    process = start(mine, "-m", "llmtune", *TRAIN, WORKERS)
    wait_until(lambda: num_steps(mine, "a") >= 20, process)
    loaders = children(process.pid)
    assert len(loaders) == 2
    os.kill(loaders[1], sent)
    done = ended(process, within=10)
    assert done.code == 5 and done.said.count("Resource error:") == 1, done.said
    assert f"the loader process {loaders[1]} was killed by a signal {words}" in done.said and "resumes" in done.said
    assert "Traceback" not in done.said and "bug of llmtune" not in done.said
    assert not any(map(is_alive, loaders))
    assert "resuming" in mine.ok(*TRAIN, WORKERS).err
    assert_equal_ends(mine.latest("a"), whole.latest("a"))


@pytest.mark.slow
def test_none_outlives_a_killed_run(mine: Folder):
    process = start(mine, "-m", "llmtune", *TRAIN, WORKERS)
    wait_until(lambda: num_steps(mine, "a") >= 5, process)
    loaders = children(process.pid)
    assert len(loaders) == 2
    process.kill()
    deadline = time.monotonic() + 10
    while any(map(is_alive, loaders)):
        assert time.monotonic() < deadline, "a loader process lives on"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_tokenizer_may_have_used_threads(whole: Folder, mine: Folder):
    """Its threads do not come along into a process that begins later, which waits for them if it may use any."""
    process = start(mine, "-m", "llmtune", *TRAIN, WORKERS, TOKENIZERS_PARALLELISM="true")
    done = ended(process, within=60)
    assert done.code == 0 and "fork" not in done.said and "arallelism" not in done.said, done.said
    assert_equal_ends(mine.latest("a"), whole.latest("a"))


MANY = """
import resource, sys
import torch
from llmtune.tasks.base import Batch
from llmtune.training import loader

def make(key):
    ids = torch.full((8,), key)
    return Batch({str(i): ids for i in range(8)}, {"labels": ids}, ids, ids, 1.0)

batches = loader.load(make, lambda: iter(range(1200)), num_workers=int(sys.argv[1]), pin_memory=False)
print([int(batch.example_ids[0]) for batch in list(batches)] == list(range(1200)))
"""


@pytest.mark.parametrize("number", [64, pytest.param(256, marks=pytest.mark.slow)])
def test_many_processes_say_nothing(tmp_path: Path, number: int):
    """Not on two cores, and not under the usual limit of 1,024 open files, though all batches are kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "many.py").write_text(MANY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        process = start(Folder(tmp_path), "many.py", str(number))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    done = ended(process, within=60)
    assert (done.code, done.said) == (0, "True\n")


LEFT = """
from tests.unit.training.test_loader import batch
from llmtune.training import loader

batches = loader.load(batch, lambda: iter(range(1000)), num_workers=4, pin_memory=False)
next(batches)
print("at the end", flush=True)
"""


def test_processes_that_are_still_there_do_not_hold_up_the_end(tmp_path: Path):
    """Something may still refer to them: torch then waits five seconds for each."""
    (tmp_path / "left.py").write_text(LEFT)
    process = start(Folder(tmp_path), "left.py")
    assert process.stdout.readline() == "at the end\n"
    assert ended(process, within=10)[:2] == (0, "")


@pytest.mark.slow
def test_256_processes_change_nothing(whole: Folder, mine: Folder):
    done = ended(start(mine, "-m", "llmtune", *TRAIN, "hardware.num_workers=256"), within=120)
    assert done.code == 0 and "arning" not in done.said and "DataLoader" not in done.said, done.said
    best = "checkpoints/best/model.safetensors"
    assert sha256(mine.latest("a") / best) == sha256(whole.latest("a") / best)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group(whole: Folder, mine: Folder, sent: signal.Signals):
    """A ctrl-C reaches the loader processes, too; a batch system may send all of them SIGTERM."""
    process = start(mine, "-m", "llmtune", *TRAIN, WORKERS)
    wait_until(lambda: num_steps(mine, "a") >= 20, process)
    for pid in [*children(process.pid), process.pid]:
        os.kill(pid, sent)
    done = ended(process, within=10)
    assert done.code == 128 + sent and "everything is saved" in done.said and "Traceback" not in done.said, done.said
    mine.ok(*TRAIN, WORKERS)
    assert_equal_ends(mine.latest("a"), whole.latest("a"))
