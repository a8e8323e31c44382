"""What a directory holds, file by file: written last, so that a directory with a manifest is complete."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llmtune.errors import CheckpointError
from llmtune.failures import is_the_systems
from llmtune.files import replacing, side_by_side, sync

NAME = "MANIFEST.json"
FORMAT = 1


def write(directory: Path, *, without: Sequence[str] = (), **facts: Any) -> None:
    """Sync every file of a directory, note size and sha256 of each, and sync the directory.

    Args:
        directory: flat: no folder inside.
        without: files that people may change.
        facts: JSON-ready; kept in the manifest.
    """
    noted = side_by_side(*(partial(_synced, file) for file in sorted(directory.iterdir())))
    files = {name: facts for name, facts in noted if name not in without}
    content = {"format": FORMAT, **facts, "files": files}
    path = directory / NAME
    path.write_text(_sealed(content), encoding="utf-8")
    sync(path)
    sync(directory)


def add(directory: Path, name: str) -> None:
    """Note one more file of a directory, or another content of it; a kill leaves the manifest as it was, or as it is to be."""
    content = read(directory)
    _, content["files"][name] = _synced(directory / name)
    with replacing(directory / NAME, durable=True) as file:
        file.write(_sealed(content))
    sync(directory)


def read(directory: Path) -> dict[str, Any]:
    """The manifest itself, checked against its own sha256.

    Raises:
        CheckpointError: it is missing, damaged, or of a newer format.
    """
    path = directory / NAME
    if not path.is_file():
        raise CheckpointError("there is no manifest: the writing was interrupted", where=str(directory))
    try:
        content = json.loads(path.read_bytes())
        stated = content.pop("sha256")
        version = content["format"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError("the manifest is damaged", where=str(path)) from None
    if isinstance(version, int) and version > FORMAT:
        raise CheckpointError(f"the directory has format {version}", where=str(path), remedy="use a newer llmtune")
    if stated != _digest(content):
        raise CheckpointError("the manifest is damaged: its content differs from its own checksum", where=str(path))
    return content


def verify(directory: Path, *, reads: bool = True) -> dict[str, Any]:
    """Check every file against the manifest; returns the manifest.

    Args:
        directory: that `write` was called for.
        reads: whether the content of the files is compared, too.

    Raises:
        CheckpointError: something is missing, altered, or a link; or the manifest is unfit.
    """
    content = read(directory)
    for name, entry in content["files"].items():
        file = directory / name
        if file.is_symlink() or not file.is_file():
            raise CheckpointError(f"{name} is missing or no plain file", where=str(directory))
        if file.stat().st_size != entry["size"] or (reads and sha256(file) != entry["sha256"]):
            raise CheckpointError(f"{name} is damaged: its content differs from the manifest", where=str(directory))
    return content


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as e:
        if is_the_systems(e):
            raise
        raise CheckpointError(f"{file.name} cannot be read: {e}", where=str(file)) from None


def _synced(file: Path) -> tuple[str, dict[str, Any]]:
    sync(file)
    return file.name, {"size": file.stat().st_size, "sha256": sha256(file)}


def sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _sealed(content: dict[str, Any]) -> str:
    return json.dumps({**content, "sha256": _digest(content)}, indent=1) + "\n"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
