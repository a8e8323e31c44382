"""Processes that die at a place of their own, forked from one that has imported torch and run no operator.

The place is exact: the process sends SIGKILL to itself at the n-th call of a function.
"""

import contextlib
import functools
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from scripts.bench import kills
from tests.conftest import ROOT
from tests.faults.processes import at_once

SECONDS = 240.0  # after which a child hangs


class Death(NamedTuple):
    """SIGKILL before (or after) the n-th call of a function in a process."""

    place: str
    call: int
    is_after: bool = False

    def prepare(self) -> None:
        """Let this process die there."""
        module, _, names = self.place.partition(":")
        *path, name = names.split(".")
        owner = functools.reduce(getattr, path, importlib.import_module(module))
        function, calls = getattr(owner, name), itertools.count(1)

        def counted(*args: Any, **kwargs: Any) -> Any:
            number = next(calls)
            if number == self.call and not self.is_after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*args, **kwargs)
            if number == self.call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counted)


def serve() -> None:
    """Fork a process that trains for each line of standard input, and answer with its exit code."""
    kills.load_modules()
    import llmtune.commands.finetune
    import llmtune.commands.run  # noqa: F401
    from llmtune.training import saver

    saver.in_background = at_once
    for line in sys.stdin:
        request = json.loads(line)
        verb, *args = request["args"]
        folder = Path(request["folder"])
        prepare = Death(*request["death"]).prepare if request["death"] else lambda: None
        child = kills.fork(args, folder, folder / "log", verb=verb, prepare=prepare)
        code = kills.wait(child, SECONDS)
        if code is None:
            kills.kill(child)
        with contextlib.suppress(ProcessLookupError):  # loader workers that a killed process leaves behind
            os.killpg(child, signal.SIGKILL)
        print(json.dumps(code), flush=True)


class Server:
    """The process behind `serve`."""

    def __init__(self, cache: Path):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LLMTUNE_CACHE": str(cache),
            "TMPDIR": str(cache),  # killed loader workers leave folders there
            "OMP_NUM_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }
        program = f"from {__name__} import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, folder: Path, args: list[str], death: Death | None = None) -> str:
        """Run `llmtune ARGS` to its end, or to its death; returns what it told."""
        log = folder / "log"
        log.unlink(missing_ok=True)
        self.process.stdin.write(json.dumps({"args": args, "folder": str(folder), "death": death}) + "\n")
        self.process.stdin.flush()
        code = json.loads(self.process.stdout.readline())
        told = log.read_text(encoding="utf-8", errors="replace")
        assert code == (-signal.SIGKILL if death else 0), f"ends with {code} ({death}):\n{told[-3000:]}"
        return told
