"""A system that refuses a read, a write or a file: one panel, exit code 5, nothing lost, and the same command again ends well.

strace lets single calls fail (see nursery.py); limits, and file systems that are read-only or have few inodes, are real ones.
"""

import contextlib
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.faults.nursery import RENAMES, SYNCS, WRITES, Call, Done, Nursery, require_strace
from tests.faults.test_every_write import DATA, DEVICE, tree
from tests.pipeline.conftest import SMALL, read_lines, sentences, sha256, write_rows

PANEL = re.compile(r"^(?:\w+ error|Error|\d+ config errors):$", re.M)
TRAIN = [*DATA, *SMALL["lstm"], *DEVICE]
CALLS = [*WRITES, *SYNCS, *RENAMES, "mkdir", "symlink", "openat", "read", "pread64"]
# What each kind of call may fail with; a file that is opened to be read has two of its own.
ERRORS = {
    **dict.fromkeys(WRITES, ["ENOSPC", "EIO", "EDQUOT"]),
    **dict.fromkeys([*SYNCS, *RENAMES, "read", "pread64"], ["EIO"]),
    **dict.fromkeys(["mkdir", "symlink"], ["ENOSPC", "EROFS"]),
    "openat": ["EROFS", "EDQUOT", "EACCES", "ENOSPC"],
}
TOO_MANY = ["EMFILE", "ENFILE"]
SAMPLE = [
    ("train", "fsync", "EIO", r"tmp-step-000004.*/MANIFEST.json"),
    ("train", "write", "ENOSPC", r"tmp-step-000004.*/MANIFEST.json"),
    ("train", "ftruncate", "ENOSPC", r"tmp-step-000004"),
    ("train", "write", "EIO", r"metrics.jsonl"),
    ("train", "mkdir", "ENOSPC", r"tmp-step-000004"),
    ("train", "openat", "EMFILE", r"tmp-step-000004.*/model.safetensors"),
    ("train", "openat", "EROFS", r"metrics.jsonl"),
    ("train", "rename", "EDQUOT", r'step-000004"'),
    ("preprocess", "read", "EIO", r"rows.csv"),
    ("preprocess", "write", "ENOSPC", r"tokenizer/tokenizer.json"),
    ("preprocess", "openat", "ENFILE", r"train.arrow"),
    ("preprocess", "fsync", "EIO", r"prepared>"),
]


class Verb:
    """A command in an empty folder, and what it gives undisturbed."""

    def __init__(self, name: str, nursery: Nursery, folder: Path):
        self.name, self.nursery, self.folder = name, nursery, folder
        whole = self.place("whole")
        self.calls = nursery.trace(*self.line(whole), folder=whole, calls=CALLS)
        self.expected = self.outcome(whole)

    def place(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        write_rows(folder / "rows.csv", sentences(60))
        return folder

    def line(self, folder: Path) -> tuple[str, ...]:
        if self.name == "preprocess":
            return "llmtune", "preprocess", *DATA
        often = ["training.epochs=3", "training.save_every=4", "training.keep_checkpoints=3"]
        return "llmtune", "train", *TRAIN, *often, "run_name=a", f"output_dir={folder / 'runs'}"

    def run(self, folder: Path) -> Done:
        return self.nursery.run(*self.line(folder), folder=folder)

    def outcome(self, folder: Path) -> dict[str, Any]:
        """All that does not depend on the time."""
        if self.name == "preprocess":
            return tree(folder / "cache")
        (run,) = folder.glob("runs/a/2*")
        steps = run / "checkpoints"
        files = (*steps.glob("step-*/*.safetensors"), *steps.glob("*/*.safetensors"))
        found: dict[str, Any] = {str(file.relative_to(run)): sha256(file) for file in files}
        found["log"] = [[e["event"], e["step"], e.get("loss"), e.get("metrics")] for e in read_lines(run / "metrics.jsonl")]
        return found

    def ends_well(self, folder: Path) -> None:
        """Whether the same command, undisturbed, gives what it would have given in the first place."""
        done = self.run(folder)
        assert done.code == 0, done.told
        assert self.outcome(folder) == self.expected

    def fails(self, call: Call, error: str) -> None:
        """Let a call fail, look at what is told and left, and do the same again."""
        folder = self.place("failing")
        done = self.nursery.inject(call, f"error={error}", *self.line(folder), folder=folder)
        try:
            if done.code == 0:  # what would have failed anyway, where Python copies in another way, a table after the end
                is_table = "/data.json" in call.line and "what became of the rows cannot be told" in done.told
                is_harmless = " = -1 E" in call.line or call.name == "sendfile" or is_table
                assert is_harmless and self.outcome(folder) == self.expected
                return
            is_data = "rows.csv" in call.line and call.name in ("read", "pread64")
            is_refused(done, codes=(3, 5) if is_data else (5,))
            are_whole(folder / "runs")
            self.ends_well(folder)
        except Exception as e:
            raise AssertionError(f"{error} at {call}: {e}") from e
        finally:
            shutil.rmtree(folder)


def is_refused(done: Done, *, codes: tuple[int, ...] = (5,)) -> None:
    """Whether the user is told in one panel."""
    assert done.code in codes, done
    assert len(PANEL.findall(done.told)) == 1 and "Traceback" not in done.told, done.told


def are_whole(runs: Path) -> None:
    """Whether each step is."""
    from llmtune.training import checkpoint

    for step in runs.glob("a/2*/checkpoints/step-*"):
        checkpoint.verify(step)


@pytest.fixture(scope="module")
def verbs(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Verb]:
    require_strace()
    made: dict[str, Verb] = {}

    def of(name: str) -> Verb:
        if name not in made:
            made[name] = Verb(name, nursery, tmp_path_factory.mktemp(name))
        return made[name]

    return of


@pytest.mark.parametrize("verb, name, error, pattern", SAMPLE)
def test_some_calls_fail(verbs: Callable[[str], Verb], verb: str, name: str, error: str, pattern: str):
    known = verbs(verb)
    known.fails(next(call for call in known.calls if call.name == name and re.search(pattern, call.line)), error)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("verb", ["train", "preprocess"])
def test_each_call_fails(verbs: Callable[[str], Verb], verb: str, name: str):
    known = verbs(verb)
    of_name = [call for call in known.calls if call.name == name and re.search(r'/whole/|"rows.csv"', call.line)]
    errors, too_many = itertools.cycle(ERRORS[name]), itertools.cycle(TOO_MANY)
    failures = []
    for call in of_name:
        try:
            known.fails(call, next(too_many if name == "openat" and "O_CREAT" not in call.line else errors))
        except AssertionError as e:
            failures.append(str(e)[:600])
    assert not failures, "\n".join(failures)


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A tmpfs; the test is skipped where none can be mounted."""
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"tmpfs cannot be mounted here (needs root), so that this is not tested: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def test_a_file_system_becomes_read_only(verbs: Callable[[str], Verb], tmp_path: Path):
    known = verbs("train")
    place = tmp_path / "disk"
    with mounted(place, "size=20m"):
        write_rows(place / "rows.csv", sentences(60))
        later = next(call for call in known.calls if re.search(r"mkdir.*tmp-step-000006", call.line))
        assert known.nursery.inject(later, "signal=SIGKILL", *known.line(place), folder=place).code == -signal.SIGKILL
        remount(place, "ro")
        before = tree(place)
        is_refused(done := known.run(place))
        assert "Read-only" in done.told and tree(place) == before and any("step-000004" in name for name in before)
        remount(place, "rw")
        known.ends_well(place)


@pytest.mark.parametrize("num_inodes", [30, *(pytest.param(n, marks=pytest.mark.slow) for n in range(3, 60) if n != 30)])
def test_few_inodes(verbs: Callable[[str], Verb], tmp_path: Path, num_inodes: int):
    known = verbs("train")
    place = tmp_path / "disk"
    with mounted(place, f"size=20m,nr_inodes={num_inodes}"):
        with contextlib.suppress(OSError):
            write_rows(place / "rows.csv", sentences(60))
        if (place / "rows.csv").is_file() and (done := known.run(place)).code:
            is_refused(done)
            are_whole(place / "runs")
            remount(place, "nr_inodes=1000")
            known.ends_well(place)


def llmtune(*args: str, folder: Path, max_files: int | None = None, **env: str) -> Done:
    """A process of its own."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "llmtune", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LLMTUNE_CACHE": str(folder / "cache"), **env},
        preexec_fn=max_files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (max_files, max_files))),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout + done.stderr)


@pytest.mark.parametrize("max_files", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (7, 9, 10, 12, 16))])
def test_few_open_files(nursery: Nursery, tmp_path: Path, max_files: int):
    write_rows(tmp_path / "rows.csv", sentences(60))
    line = ["train", *TRAIN, "training.max_steps=2", "run_name=a"]
    done = llmtune(*line, folder=tmp_path, max_files=max_files)
    if done.code:
        is_refused(done)
        assert "Too many open files" in done.told
        are_whole(tmp_path / "runs")
        done = nursery.run("llmtune", *line, folder=tmp_path)
    assert done.code == 0, done.told


def test_nothing_is_written_into_home_and_the_temporary_folder(tmp_path: Path):
    """By any library: onnxruntime would leave there what it has to tell its makers."""
    home, place = tmp_path / "home", tmp_path / "disk"
    home.mkdir()
    write_rows(tmp_path / "rows.csv", sentences(60))
    line = ["run", *TRAIN, "training.max_steps=2", "hardware.num_workers=0", "export=[huggingface,onnx]"]
    with mounted(place, "size=1m,ro"):
        done = llmtune(*line, folder=tmp_path, HOME=str(home), TMPDIR=str(place))
        assert done.code == 0 and "Traceback" not in done.told and "arning" not in done.told, done.told
        assert not list(home.iterdir())
        done = llmtune("preprocess", *DATA, folder=tmp_path, HOME=str(place), XDG_CACHE_HOME="", LLMTUNE_CACHE="")
        is_refused(done)
        assert "LLMTUNE_CACHE" in done.told


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_home_and_the_temporary_folder_are_read_only(tmp_path: Path, num_workers: int):
    place = tmp_path / "disk"
    write_rows(tmp_path / "rows.csv", sentences(60))
    line = ["run", *TRAIN, "training.max_steps=2", f"hardware.num_workers={num_workers}", "export=[huggingface,onnx]"]
    with mounted(place, "size=1m,ro"):
        done = llmtune(*line, folder=tmp_path, HOME=str(place), TMPDIR=str(place))
        assert done.code == 0 and "Traceback" not in done.told and "arning" not in done.told, done.told
