"""llmtune in processes of its own: started, struck by signals, and watched until they are gone."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import ROOT
from tests.pipeline.conftest import SMALL, Folder

ON_CPU = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]
TRAIN = ["train", "data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", "run_name=a", *ON_CPU]
TRAIN += [*SMALL["lstm"], "augment=[drop,swap]", "training.batch_size=8", "training.save_every=7", "training.epochs=4"]
STRUCK = Path(__file__).with_name("struck.py")
TWO_RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def at_once(job: Callable[[], Any]) -> Future[Any]:
    """In place of `files.in_background`, where a fault is to strike at an exact moment: nothing else is at work beside."""
    done: Future[Any] = Future()
    done.set_result(job())
    return done


class Ended(NamedTuple):
    """What became of a process; `seconds` from the blow to its end."""

    code: int
    said: str
    seconds: float


def environment(folder: Folder, **changes: str) -> dict[str, str]:
    cache = str(folder / "cache")
    return {**os.environ, "PYTHONPATH": str(ROOT), "LLMTUNE_CACHE": cache, "OMP_NUM_THREADS": "1", **changes}


def start(folder: Folder, *command: str, **variables: str) -> subprocess.Popen:
    """`python COMMAND` in a folder; its output, errors included, is one stream."""
    return subprocess.Popen(
        [sys.executable, "-P", *command],
        cwd=folder.path,
        env=environment(folder, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def strike(folder: Folder, blows: Sequence[tuple[str, int, str]], *args: str) -> Ended:
    """`llmtune ARGS`, struck at the moments of `blows` (see struck.py)."""
    plan = [str(word) for blow in blows for word in blow]
    process = start(folder, str(STRUCK), *plan, "--", *args)
    said = ended(process, within=120).said
    assert (folder / "struck-at").is_file(), f"no blow fell: {said}"
    return Ended(process.returncode, said, time.time() - float((folder / "struck-at").read_text()))


def ended(process: subprocess.Popen, *, within: float) -> Ended:
    """Wait for a process that was struck just now."""
    began = time.monotonic()
    try:
        said, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        kill_all(process)
        raise AssertionError(f"it did not end within {within} s: {process.communicate()[0]}") from None
    return Ended(process.returncode, said, time.monotonic() - began)


def wait_until(holds: Callable[[], object], process: subprocess.Popen, *, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert process.poll() is None, f"it ended too soon: {process.communicate()[0]}"
        if time.monotonic() > deadline:
            kill_all(process)
            raise AssertionError("what was waited for did not come")
        time.sleep(0.005)


def num_steps(folder: Folder, name: str) -> int:
    """Steps in the log of a run."""
    logs = list((folder / "runs" / name).glob("20*/metrics.jsonl"))
    return logs[0].read_text(encoding="utf-8").count('"event": "step"') if logs else 0


def children(pid: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = file.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(file.parent.name))
    return sorted(found)


def kill_all(process: subprocess.Popen) -> None:
    """A process with all that it has started, and that hold its output, too."""
    found = [process.pid]
    for pid in found:
        found += children(pid)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
