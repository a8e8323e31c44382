"""Runs of two tools in forked processes: start one, go on with it, compare it with the one that nothing happened to."""

import io
import json
import os
import re
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kills import LONGEST_RUN, kill, wait, write_rows
from two_trainers import STEPS, TIMES, Job, Tool

Result = dict[str, Any]
PLAIN = Job()
TELLING = r"(?i)warn|reproducib"  # of something unusual


def load_modules() -> None:
    """Import in this process what the forked ones need. No operator may run: threads do not survive a fork."""
    import kills
    from transformers import AutoConfig, AutoTokenizer, BertForMaskedLM, Trainer  # noqa: F401
    from transformers.trainer_utils import get_last_checkpoint  # noqa: F401

    kills.load_modules()


def unbuffered(fd: int) -> io.TextIOWrapper:
    """Nothing of what is written is lost with the process."""
    return io.TextIOWrapper(os.fdopen(fd, "wb", buffering=0, closefd=False), write_through=True)


def fork(work: Callable[[], int], folder: Path, log: Path) -> int:
    """Call `work` in a child process, in a folder; returns its id. An exception is printed and gives the exit code 1."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (unbuffered(fd) for fd in (1, 2))
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@dataclass
class Bench:
    """One tool with the run that nothing happened to."""

    tool: Tool
    folder: Path
    first_save: float = 0.0  # seconds from the start of the process
    seconds: float = 0.0  # of the whole process
    save_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("warm", "whole"):  # the first one fills caches
            place, started = self.place(name), time.monotonic()
            code, log = self.start(place, Job(is_timed=True))
            if code != 0:
                raise RuntimeError(f"{self.tool.name} ends with {code}:\n{log[-3000:]}")
            self.seconds = time.monotonic() - started
            times = json.loads((place / TIMES).read_text())
            self.first_save, self.save_seconds = times["first_save"] - started, statistics.median(times["saves"])
        print(
            f"{self.tool.name}: {self.seconds:.2f} s in all, {self.first_save:.2f} s to the first save, "
            f"{self.save_seconds:.3f} s for a save",
            file=sys.stderr,
        )

    @property
    def whole(self) -> Path:
        return self.folder / "whole"

    @cached_property
    def masked_once(self) -> Path:
        """The same with masks that are not drawn during the run, for what would be hidden by other masks after a resume."""
        place = self.place("masked-once")
        code, log = self.start(place, Job(masks_once=True))
        if code != 0:
            raise RuntimeError(f"{self.tool.name} ends with {code}:\n{log[-3000:]}")
        return place

    def place(self, name: str) -> Path:
        """A new folder with the rows."""
        place = self.folder / name
        place.mkdir(parents=True)
        write_rows(place)
        return place

    def begin(self, place: Path, job: Job) -> int:
        return fork(lambda: self.tool.run(job), place, place / "log")

    def start(self, place: Path, job: Job) -> tuple[int | None, str]:
        """Run to the end; the exit code, None for one that hangs, and the output of this attempt alone."""
        (place / "log").unlink(missing_ok=True)
        return self.ended(self.begin(place, job), place)

    def interrupt(self, place: Path, job: Job) -> tuple[int | None, Path]:
        """Run until a signal of the job ends it; the exit code and the newest checkpoint."""
        code, log = self.start(place, job)
        if not (found := self.tool.checkpoints(place)):
            raise RuntimeError(f"{self.tool.name} ends with {code} before any save:\n{log[-3000:]}")
        return code, found[-1]

    def ended(self, child: int, place: Path) -> tuple[int | None, str]:
        code = wait(child, LONGEST_RUN)
        if code is None:
            kill(child)
        return code, (place / "log").read_text(encoding="utf-8", errors="replace")

    def resume(self, place: Path, job: Job = PLAIN, *, told: str = TELLING) -> Result:
        """Start once more and compare.

        Args:
            place: of the run.
            job: what else is to happen.
            told: what the output has to hold for the fault to count as told.
        """
        code, log = self.start(place, job)
        beside = self.masked_once if job.masks_once else self.whole
        # A path names what is damaged without telling it.
        facts = {"code": code, "told": re.search(told, log.replace(str(place), "")) is not None, "log": log[-400:]}
        if code != 0:
            how = "hangs" if code is None else "crashed" if "Traceback" in log or code < 0 else "refused"
            return {"result": how, **facts}
        try:
            last, losses = self.tool.checkpoints(place)[-1], self.tool.losses(place)
            if step_of(last) != STEPS:
                return {"result": f"ends at step {step_of(last)}", **facts}
            difference = largest_difference(last, self.tool.checkpoints(beside)[-1])
        except (OSError, ValueError, LookupError) as e:
            return {"result": "no model", **facts, "log": repr(e)}
        is_identical = difference == 0.0 and losses == self.tool.losses(beside)
        return {"result": "identical" if is_identical else "different", "difference": difference, **facts}


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def largest_difference(mine: Path, theirs: Path) -> float:
    """Between the weights of two checkpoints; NaN counts as infinite. NumPy alone: torch would start threads before a fork."""
    import numpy as np
    from safetensors.numpy import load_file

    ours, others = (load_file(checkpoint / "model.safetensors") for checkpoint in (mine, theirs))
    found = max(float(np.abs(value - others[name]).max()) for name, value in ours.items())
    return found if found == found else float("inf")
