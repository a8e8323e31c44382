"""Small processes that strace may look after, forked from one that has imported torch and run no operator.

strace attaches when the work begins. It counts the calls of a kind from there on, and lets the n-th of them fail, or
kills before it has done anything.
"""

import collections
import contextlib
import functools
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT
from tests.faults.processes import at_once

WRITES = ["write", "writev", "pwrite64", "copy_file_range", "sendfile", "truncate", "ftruncate", "fallocate"]
SYNCS = ["fsync", "fdatasync"]
RENAMES = ["rename", "renameat", "renameat2"]
ENTRIES = ["link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"]
CALLS = [*WRITES, *SYNCS, *RENAMES, *ENTRIES]
LONGEST = 240.0  # seconds, after which a process hangs


class Done(NamedTuple):
    """What a process did: its exit code, or the number of the signal that ended it, negative; and all it said."""

    code: int
    told: str


class Call(NamedTuple):
    """The n-th call of a name in a process, and its line in the trace."""

    name: str
    number: int
    line: str

    def __str__(self) -> str:
        return f"{self.name} {self.number}: {self.line}"


class Nursery:
    """A process that forks others for one piece of work each, which strace may look after.

    Args:
        folder: for logs and traces.
    """

    def __init__(self, folder: Path):
        self._log, self._trace = folder / "log", folder / "trace"
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, "-P", str(Path(__file__))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        assert self._answer() == "ready"

    def run(self, *work: str, folder: Path, strace: Sequence[str] = (), **how: int) -> Done:
        """Do a piece of `WORK` in a folder; with options for strace, under its eyes; see `start`."""
        pid = self.start(*work, folder=folder, is_traced=bool(strace), **how)
        with self._traced(pid, strace) if strace else contextlib.nullcontext():
            return self.end()

    def start(
        self, *work: str, folder: Path, is_traced: bool = False, largest_file: int | None = None, num_ranks: int = 1
    ) -> int:
        """Begin a piece of work. `end` has to come before the next one.

        Args:
            work: its name, and its arguments.
            folder: where it is done.
            is_traced: whether the process stops before it begins, to be attached to.
            largest_file: bytes that a file may have; None: any number.
            num_ranks: processes that share the work, as a launcher would start them.

        Returns:
            the id of the process, or of the first.
        """
        self._log.unlink(missing_ok=True)
        asked = {"work": work, "folder": str(folder), "log": str(self._log), "is_traced": is_traced}
        asked |= {"largest_file": largest_file, "ranks": _ranks(num_ranks)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        self.pid = int(self._answer())
        return self.pid

    @property
    def is_at_work(self) -> bool:
        """Whether the piece of work that was begun last goes on."""
        return Path(f"/proc/{self.pid}").exists()

    def end(self) -> Done:
        """Wait for the piece of work that was begun."""
        return Done(int(self._answer()), self._log.read_text(encoding="utf-8", errors="replace"))

    def trace(self, *work: str, folder: Path, calls: Sequence[str] = CALLS) -> list[Call]:
        """The calls that an undisturbed piece of work makes on files of a folder."""
        done = self.run(*work, folder=folder, strace=["-e", f"trace={','.join(calls)}", "-o", str(self._trace)])
        assert done.code == 0, done.told
        lines = [re.match(r"(\d+) +((\w+)\(.*)", line) for line in self._trace.read_text().splitlines()]
        threads = {match[1] for match in lines if match and str(folder) in match[2]}
        assert len(threads) == 1, "strace counts the calls of each thread by themselves"
        counts: collections.Counter[str] = collections.Counter()
        made = []
        for match in lines:
            if match and match[1] in threads:
                counts[match[3]] += 1
                made.append(Call(match[3], counts[match[3]], match[2]))
        return [call for call in made if str(folder) in call.line]

    def inject(self, call: Call, fault: str, *work: str, folder: Path) -> Done:
        """Do a piece of work with a fault at a call: `signal=SIGKILL`, `error=EIO`."""
        options = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:{fault}:when={call.number}", "-o", "/dev/null"]
        return self.run(*work, folder=folder, strace=options)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(LONGEST)

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        assert line, "the process that forks the others has died"
        return line.strip()

    @contextlib.contextmanager
    def _traced(self, pid: int, options: Sequence[str]) -> Iterator[None]:
        """Attach to a process that has stopped itself, and let it go on."""
        command = ["strace", "-f", "-y", *options, "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        told = tracer.stderr.readline()
        os.kill(pid, signal.SIGCONT if "attached" in told else signal.SIGKILL)
        assert "attached" in told, told
        yield
        tracer.communicate(timeout=LONGEST)


def _ranks(number: int) -> list[dict[str, str]]:
    """The environment of each of several processes that work together; nothing for a single one."""
    if number == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(number))
    return [{**place, **sizes, **dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))} for rank in range(number)]


def require_strace() -> None:
    """Skip the test where processes cannot be traced."""
    if hindrance := _hindrance():
        pytest.skip(hindrance)


@functools.cache
def _hindrance() -> str | None:
    """Why processes cannot be traced."""
    if not shutil.which("strace"):
        return "strace is not installed: faults at system calls are not tested"
    with subprocess.Popen(["sleep", str(LONGEST)]) as sleeper:
        command = ["strace", "-o", "/dev/null", "-e", "inject=write:signal=SIGKILL", "-p", str(sleeper.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        told = tracer.stderr.readline()
        sleeper.kill()
        tracer.communicate(timeout=LONGEST)
    if "attached" in told:
        return None
    return f"strace cannot attach to a process here, so that faults at system calls are not tested: {told.strip()}"


# What follows runs in the process that forks the others, and in those.


def _save(step: str) -> Callable[[], object]:
    """A step with a small model, a tokenizer and an optimizer."""
    import torch

    from llmtune.models.lstm import LstmConfig, LstmForSequenceClassification
    from llmtune.training import checkpoint

    torch.manual_seed(int(step))
    model = LstmForSequenceClassification(LstmConfig(vocab_size=20, embedding_size=4, hidden_size=4))
    tokenizer = Path("tokenizer").resolve()
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "tokenizer.json").write_text("{}\n")
    state = checkpoint.State(
        save_model=model.save_pretrained,
        learned={},
        newest={},
        description={"task": {"type": "classification"}},
        tokenizer_dir=tokenizer,
        optimizer={f"{name}.exp_avg": torch.rand_like(weight) for name, weight in model.named_parameters()},
        trainer={"step": int(step)},
        fingerprint={"seed": 0},
        config_digest="0" * 64,
    )
    directory = Path("checkpoints").resolve()

    def work() -> None:
        path = checkpoint.save(directory, state, step=int(step))
        checkpoint.point(directory / "latest", path)
        checkpoint.point(directory / "best", path)
        checkpoint.verify(path)

    return work


def _rotate() -> Callable[[], object]:
    from llmtune.training import checkpoint

    directory = Path("checkpoints").resolve()
    return lambda: checkpoint.rotate(directory, keep=2, protected={directory / "best", directory / "latest"})


def _llmtune(*args: str) -> Callable[[], object]:
    from llmtune.cli import main

    os.environ["LLMTUNE_CACHE"] = str(Path("cache").resolve())
    return lambda: main(list(args))


def _process(*args: str) -> Callable[[], object]:
    """As `python -m llmtune` does it: signals are answered, by a thread of their own."""
    from llmtune import __main__

    _llmtune()
    sys.argv[1:] = args
    return __main__.main


def _score(*args: str) -> Callable[[], object]:
    from tests.faults import scored

    _llmtune()
    return lambda: scored.main(args[:-1], Path(args[-1]))


WORK = {"save": _save, "rotate": _rotate, "llmtune": _llmtune, "process": _process, "score": _score}


def _serve() -> None:
    """Fork a process for each line of standard input. Nothing is read ahead: a fork would read it again."""
    import accelerate.utils  # noqa: F401
    import transformers

    import llmtune.commands.export
    import llmtune.commands.preprocess
    import llmtune.commands.stage
    import llmtune.commands.train
    import llmtune.evaluation.metrics  # noqa: F401

    transformers.utils.logging.disable_progress_bar()  # it writes as often as there is time for
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        children = [_fork(asked, variables) for variables in asked["ranks"]]
        if asked["is_traced"]:
            os.waitpid(children[0], os.WUNTRACED)
        print(children[0], flush=True)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(next(filter(None, codes), 0), flush=True)


def _fork(asked: dict[str, Any], variables: dict[str, str]) -> int:
    child = os.fork()
    if not child:
        os.environ.update(variables)
        _work(asked)
    return child


def _work(asked: dict[str, Any]) -> None:
    code: int | None = 1
    try:
        signal.alarm(int(LONGEST))
        os.chdir(asked["folder"])
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(log, fd)
        name, *args = asked["work"]
        if asked["largest_file"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
        work = WORK[name](*args)
        if asked["is_traced"]:
            _be_one_thread()
            os.kill(os.getpid(), signal.SIGSTOP)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _be_one_thread() -> None:
    """strace counts the calls of each thread by themselves."""
    from llmtune.training import checkpoint, manifest, saver

    for module in (checkpoint, manifest):
        module.side_by_side = lambda *jobs: [job() for job in jobs]
    saver.in_background = at_once


if __name__ == "__main__":
    _serve()
