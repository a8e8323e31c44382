"""SIGKILL before each system call that changes a file: in a save, a rotation, an export, and a write of prepared rows.

The processes that die are forked from one that has imported torch and run no operator. strace attaches when the work begins,
and kills at the n-th call of a kind, before the call has done anything. After that only whole steps, exports and entries may be
found, and the same work again has to give, file by file, what it gives undisturbed.
"""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import ROOT
from tests.pipeline.conftest import SMALL, read, sentences, sha256, write_rows

WRITES = ["write", "writev", "pwrite64", "copy_file_range", "sendfile", "truncate", "ftruncate", "fallocate"]
SYNCS = ["fsync", "fdatasync"]
RENAMES = ["rename", "renameat", "renameat2"]
ENTRIES = ["link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir"]
CALLS = [*WRITES, *SYNCS, *RENAMES, *ENTRIES]
LONGEST = 60.0  # seconds, after which a process hangs
DAY = 24 * 3600
IS_UNNAMED = re.compile(r"/\.(tmp|trash)-")
DATA = ["data.train_file=rows.csv", "tokenizer.min_frequency=1"]
TRAIN = ["run_name=a", "training.epochs=2", "training.keep_checkpoints=2", *SMALL["lstm"]]
DEVICE = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]


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

    def run(self, *work: str, folder: Path, strace: Sequence[str] = ()) -> Done:
        """Do a piece of `WORK` in a folder; with options for strace, under its eyes."""
        self._log.unlink(missing_ok=True)
        asked = {"work": work, "folder": str(folder), "log": str(self._log), "is_traced": bool(strace)}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        with self._traced(int(self._answer()), strace) if strace else contextlib.nullcontext():
            code = int(self._answer())
        return Done(code, self._log.read_text(encoding="utf-8", errors="replace"))

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


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    require_strace()
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


def require_strace() -> None:
    """Skip the test where processes cannot be traced."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: faults at system calls are not tested")
    with subprocess.Popen(["sleep", str(LONGEST)]) as sleeper:
        command = ["strace", "-o", "/dev/null", "-e", "inject=write:signal=SIGKILL", "-p", str(sleeper.pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        told = tracer.stderr.readline()
        sleeper.kill()
        tracer.communicate(timeout=LONGEST)
    if "attached" not in told:
        pytest.skip(f"strace cannot attach to a process here, so that faults at system calls are not tested: {told.strip()}")


class Save:
    """A step beside two others, as the trainer saves it."""

    sample = 8

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        for step in ("1", "2"):
            assert nursery.run("save", step, folder=folder).code == 0

    def work(self, folder: Path) -> tuple[str, ...]:
        return "save", "3"

    def is_sound(self, folder: Path) -> None:
        """Whether nothing but whole steps is found."""
        from llmtune.training import checkpoint

        told: list[str] = []
        step, path = checkpoint.newest_good(folder / "checkpoints", tell=told.append)
        assert step in (2, 3) and not told
        for link in ("best", "latest"):
            checkpoint.verify((folder / "checkpoints" / link).resolve(strict=True))

    def settle(self, nursery: Nursery, folder: Path) -> None:
        """What comes after the work, and removes leftovers."""
        assert nursery.run("rotate", folder=folder).code == 0
        for link in (folder / "checkpoints").glob(".[bl]*"):  # a link that has not got its name yet is in nobody's way
            link.unlink()


class SaveAgain(Save):
    """A step that is there already, and damaged."""

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        super().arrange(nursery, folder)
        assert nursery.run("save", "3", folder=folder).code == 0
        (folder / "checkpoints" / "step-000003" / "trainer.json").write_text("{}")
        (folder / "checkpoints" / "latest").unlink()
        (folder / "checkpoints" / "latest").symlink_to("step-000002")
        (folder / "checkpoints" / "best").unlink()
        (folder / "checkpoints" / "best").symlink_to("step-000002")

    def is_sound(self, folder: Path) -> None:
        damaged = folder / "checkpoints" / "step-000003"
        if damaged.is_dir() and (damaged / "trainer.json").read_text() == "{}":
            damaged.rename(folder / "damaged")
        super().is_sound(folder)
        if (folder / "damaged").is_dir():
            (folder / "damaged").rename(damaged)


class Rotate(Save):
    """Two of five steps go, and what interrupted saves left. The best is older than those that are kept."""

    sample = 5

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        for step in "12345":
            assert nursery.run("save", step, folder=folder).code == 0
        checkpoints = folder / "checkpoints"
        (checkpoints / "best").unlink()
        (checkpoints / "best").symlink_to("step-000001")
        for name in (".tmp-step-000006.aaaaaaaa", ".trash-step-000000.bbbbbbbb"):
            shutil.copytree(checkpoints / "step-000005", checkpoints / name)

    def work(self, folder: Path) -> tuple[str, ...]:
        return ("rotate",)

    def is_sound(self, folder: Path) -> None:
        from llmtune.training import checkpoint

        left = checkpoint.steps(folder / "checkpoints")
        assert {1, 4, 5} <= {step for step, _ in left}
        for _, path in left:
            checkpoint.verify(path)

    def settle(self, nursery: Nursery, folder: Path) -> None:
        pass


class Export:
    """All forms of a small LSTM."""

    sample = 3

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        write_rows(folder / "rows.csv", sentences(60))
        done = nursery.run("llmtune", "train", *DATA, *TRAIN, *DEVICE, folder=folder)
        assert done.code == 0, done.told

    def work(self, folder: Path) -> tuple[str, ...]:
        return "llmtune", "export", str(_run(folder)), "checkpoint=latest", *DEVICE

    def is_sound(self, folder: Path) -> None:
        """Whether nothing but whole exports is found, and parity.json tells of these and no others."""
        from llmtune.training import manifest

        exports = _run(folder) / "export"
        known = read(exports / "parity.json")["exports"] if (exports / "parity.json").is_file() else {}
        for directory in exports.glob("[!.]*/"):
            stated = manifest.verify(directory)["checkpoint"]
            assert known.get(directory.name, {"checkpoint": stated})["checkpoint"] == stated

    def settle(self, nursery: Nursery, folder: Path) -> None:
        pass


class ExportAgain(Export):
    """The same over the exports of another checkpoint."""

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        super().arrange(nursery, folder)
        best, latest = ((_run(folder) / "checkpoints" / name).resolve() for name in ("best", "latest"))
        other = next(path for path in best.parent.glob("step-*") if path != latest)
        done = nursery.run("llmtune", "export", str(other), f"output={_run(folder) / 'export'}", *DEVICE, folder=folder)
        assert done.code == 0, done.told


class Prepare:
    """The rows of a small CSV file."""

    sample = 5

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        write_rows(folder / "rows.csv", sentences(40))

    def work(self, folder: Path) -> tuple[str, ...]:
        return "llmtune", "preprocess", *DATA

    def is_sound(self, folder: Path) -> None:
        from llmtune.data import prepared

        for entry in (folder / "cache" / "prepared").glob("[!.]*"):
            assert prepared.find(entry.name, cache_dir=entry.parent) is not None

    def settle(self, nursery: Nursery, folder: Path) -> None:
        """A day later another entry is made."""
        from llmtune.data import prepared

        cache = folder / "cache" / "prepared"
        for path in cache.rglob("*"):
            os.utime(path, (path.stat().st_atime - 2 * DAY, path.stat().st_mtime - 2 * DAY))
        prepared.open_or_build({"of": "another"}, lambda directory: {}, cache_dir=cache)


class PrepareAgain(Prepare):
    """The same over an entry that is damaged."""

    def arrange(self, nursery: Nursery, folder: Path) -> None:
        super().arrange(nursery, folder)
        done = nursery.run(*self.work(folder), folder=folder)
        assert done.code == 0, done.told
        (entry,) = (folder / "cache" / "prepared").iterdir()
        (entry / "train.arrow").write_bytes(b"")

    def is_sound(self, folder: Path) -> None:
        assert all((entry / "meta.json").is_file() for entry in (folder / "cache" / "prepared").glob("[!.]*"))


PHASES = {kind.__name__: kind() for kind in (Save, SaveAgain, Rotate, Export, ExportAgain, Prepare, PrepareAgain)}
each_phase = pytest.mark.parametrize("name", PHASES)


class Arranged:
    """A phase as it begins, and what it is when nobody disturbs it."""

    def __init__(self, phase: Any, nursery: Nursery, folder: Path):
        self.phase, self._nursery, self._folder = phase, nursery, folder
        (folder / "before").mkdir()
        phase.arrange(nursery, folder / "before")
        whole = self.copy("whole")
        self.calls = nursery.trace(*phase.work(whole), folder=whole)
        phase.is_sound(whole)
        phase.settle(nursery, whole)
        self.expected = tree(whole)

    def copy(self, name: str) -> Path:
        return shutil.copytree(self._folder / "before", self._folder / name, symlinks=True)

    def kill(self, call: Call) -> None:
        """Kill at a call, look at what is left, and do the same again."""
        folder = self.copy("killed")
        done = self._nursery.inject(call, "signal=SIGKILL", *self.phase.work(folder), folder=folder)
        assert done.code == -signal.SIGKILL, f"{call}: {done}"
        try:
            self.phase.is_sound(folder)
            done = self._nursery.run(*self.phase.work(folder), folder=folder)
            assert done.code == 0, done.told
            self.phase.settle(self._nursery, folder)
            assert tree(folder) == self.expected
        except Exception as e:
            raise AssertionError(f"after a kill at {call}") from e
        finally:
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def arranged(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Arranged]:
    made: dict[str, Arranged] = {}

    def of(name: str) -> Arranged:
        if name not in made:
            made[name] = Arranged(PHASES[name], nursery, tmp_path_factory.mktemp(name))
        return made[name]

    return of


@each_phase
def test_a_kill_at_some_calls(arranged: Callable[[str], Arranged], name: str):
    found = arranged(name)
    last_of_each_kind = list({call.name: call for call in found.calls}.values())
    assert len(last_of_each_kind) >= 3
    for number in range(found.phase.sample):
        found.kill(last_of_each_kind[number * len(last_of_each_kind) // found.phase.sample])


@pytest.mark.slow
@each_phase
def test_a_kill_at_each_call(arranged: Callable[[str], Arranged], name: str):
    found = arranged(name)
    assert len(found.calls) >= 20
    failures = []
    for call in found.calls:
        try:
            found.kill(call)
        except AssertionError as e:
            failures.append(f"{e} ({e.__cause__})")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", [name for name in PHASES if name != "Rotate"])
def test_what_gets_its_name_is_on_the_disk(arranged: Callable[[str], Arranged], name: str):
    assert not (lost := unsynced(arranged(name).calls)), lost


def unsynced(calls: Sequence[Call]) -> list[str]:
    """What a power cut could lose of files and folders that got their names: content, entries, and the names of folders."""
    dirty, folders, lost = set(), set(), []
    for call in calls:
        if re.search(r" = -1 E\w+ ", call.line):
            continue
        opened, named = re.findall(r"\d+<([^>]*)>", call.line), re.findall(r'"([^"]*)"', call.line)
        if call.name in WRITES:
            dirty.add(opened[-1 if call.name == "copy_file_range" else 0])
        elif call.name in SYNCS:
            dirty.discard(opened[0])
        elif call.name == "mkdir" and IS_UNNAMED.search(named[0]):
            folders.add(named[0])
            dirty.add(named[0])
        elif call.name in RENAMES:
            old, new = named
            moved = {path for path in dirty if path == old or path.startswith(f"{old}/")}
            dirty -= moved
            if IS_UNNAMED.search(new):
                dirty |= {new + path.removeprefix(old) for path in moved}
            else:
                lost += moved
            if IS_UNNAMED.search(new) or old in folders:
                dirty.add(os.path.dirname(new))
    return lost + [path for path in dirty if not IS_UNNAMED.search(path)]


def tree(folder: Path) -> dict[str, str]:
    """Every file by its sha256, every link by its target, every folder."""

    def content(path: Path) -> str:
        if path.is_symlink():
            return f"-> {os.readlink(path)}"
        return sha256(path) if path.is_file() else ""

    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


def _run(folder: Path) -> Path:
    (run,) = folder.glob("runs/a/2*")
    return run


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


WORK = {"save": _save, "rotate": _rotate, "llmtune": _llmtune}


def _serve() -> None:
    """Fork a process for each line of standard input. Nothing is read ahead: a fork would read it again."""
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
        child = os.fork()
        if not child:
            _work(asked)
        if asked["is_traced"]:
            os.waitpid(child, os.WUNTRACED)
            print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _work(asked: dict[str, Any]) -> None:
    code: int | None = 1
    try:
        signal.alarm(int(LONGEST))
        os.chdir(asked["folder"])
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(log, fd)
        name, *args = asked["work"]
        work = WORK[name](*args)
        if asked["is_traced"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


if __name__ == "__main__":
    _serve()
