"""SIGKILL before each system call that changes a file: in a save, a rotation, an export, and a write of prepared rows.

After that only whole steps, exports and entries may be found, and the same work again has to give, file by file, what it gives
undisturbed.
"""

import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults.nursery import RENAMES, SYNCS, WRITES, Call, Nursery, require_strace
from tests.pipeline.conftest import SMALL, read, sentences, sha256, write_rows

DAY = 24 * 3600
IS_UNNAMED = re.compile(r"/\.(tmp|trash)-")
DATA = ["data.train_file=rows.csv", "tokenizer.min_frequency=1"]
TRAIN = ["run_name=a", "training.epochs=2", "training.keep_checkpoints=2", *SMALL["lstm"]]
DEVICE = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]


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
        (checkpoints / ".tmp-rehearsal.cccccccc").write_bytes(bytes(1000))
        (checkpoints / ".tmp-latest-dddddddd.4194305").symlink_to("step-000005")

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
        assert not [name for name in self.expected if IS_UNNAMED.search(f"/{name}")]

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
    require_strace()
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
