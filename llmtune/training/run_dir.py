"""The folder of a run: how it is named, found again, locked, and what says that it is finished."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from llmtune.errors import CheckpointError, ResourceError
from llmtune.files import write_json

RESULT = "result.json"
CONFIG = "config.yaml"
# What may differ between a run and the command that goes on with it.
NOT_COMPARED = {
    "training.resume",
    "training.allow_drift",
    "training.profile",
    "output_dir",
    "run_name",
    "export",
    "finetune",
    "evaluation.batch_size",
    "evaluation.generate_rows",
    "evaluation.max_new_tokens",
    "hardware.num_workers",
}


def runs_below(parent: Path) -> list[Path]:
    """The run directories of a folder, newest first."""
    found = [p for p in parent.iterdir() if p.is_dir() and not p.is_symlink()] if parent.is_dir() else []
    return sorted((p for p in found if (p / CONFIG).is_file()), key=lambda p: (p / CONFIG).stat().st_mtime_ns, reverse=True)


def is_finished(run: Path) -> bool:
    """Whether training is complete and its result is still there."""
    return (run / RESULT).is_file() and (run / "checkpoints" / "best").exists()


def read_result(run: Path) -> dict[str, Any]:
    return json.loads((run / RESULT).read_text(encoding="utf-8"))


def locate_checkpoint(path: Path, which: str = "best") -> Path:
    """The model directory that a user means by a run, a checkpoint or a model directory.

    Raises:
        CheckpointError: there is none.
    """
    if not path.exists():
        raise CheckpointError(f"there is no {path}", remedy="name a run directory, such as runs/lstm_cls/latest")
    if (path / CONFIG).is_file():
        target = path / "checkpoints" / which
        if not target.exists():
            remedy = "train it first: llmtune train ..."
            raise CheckpointError(f"the run has no {which} checkpoint yet", where=str(path), remedy=remedy)
        return target.resolve()
    if any((path / name).is_file() for name in ("config.json", "llmtune.json", "adapter_config.json")):
        return path
    raise CheckpointError("is neither a run directory nor a model directory", where=str(path))


class Lock:
    """Keeps a second process out of a run directory while this one lives. The kernel frees it however the process ends."""

    def __init__(self, run: Path):
        self._path = run / ".lock"
        self._file = self._path.open("a+")

    def __enter__(self) -> "Lock":
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            remedy = "wait for it, or start another run"
            raise ResourceError(f"the run is in use by process {owner}", where=str(self._path.parent), remedy=remedy) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def finish(run: Path, result: dict[str, Any]) -> None:
    """Mark training as complete."""
    write_json(run / RESULT, result)
