"""Whether a run directory, a checkpoint or an export is what it was when it was written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from llmtune.errors import CheckpointError
from llmtune.training import checkpoint, manifest, run_dir


class Finding(NamedTuple):
    """One thing that was looked at. `problem`: None if it is sound; `facts`: what it is."""

    place: Path
    facts: str
    problem: str | None = None


def findings(path: Path) -> Iterator[Finding]:
    """Look at everything below a run directory, or at a single checkpoint or export.

    Raises:
        CheckpointError: the path is none of these.
    """
    if (path / run_dir.CONFIG).is_file():
        yield from _run(path)
    elif (path / manifest.NAME).is_file() or (path / "llmtune.json").is_file():
        yield _directory(path)
    else:
        raise CheckpointError(
            "is neither a run directory nor a checkpoint nor an export",
            where=str(path),
            remedy="name a run, such as runs/lstm_cls/latest",
        )


def _run(run: Path) -> Iterator[Finding]:
    folder = run / "checkpoints"
    steps = [step for _, step in checkpoint.steps(folder)]
    for step in steps:
        yield _directory(step)
    yield _config(run, steps)
    for name in ("best", "latest"):
        link = folder / name
        if link.is_symlink() and link.resolve() not in [step.resolve() for step in steps]:
            yield Finding(link, "link", "it leads to no checkpoint of the run")
    yield from _json_lines(run / "metrics.jsonl")
    for file in (run / run_dir.RESULT, *sorted(run.glob("evaluation/*/metrics.json")), run / "export" / "parity.json"):
        if file.is_file():
            yield _json(file)
    for export in sorted((run / "export").glob("*/")):
        if not export.name.startswith("."):
            yield _directory(export)
    for stage in sorted(run.glob("finetune*/")):
        if (stage / run_dir.CONFIG).is_file():
            yield from _run(stage)


def _config(run: Path, steps: list[Path]) -> Finding:
    """Whether config.yaml is still that which the newest checkpoint was written under."""
    file = run / run_dir.CONFIG
    for step in reversed(steps):
        try:
            stated = manifest.read(step).get("config")
        except CheckpointError:
            continue
        if stated not in (None, manifest.sha256(file)):
            return Finding(file, "", f"it is not the config that {step.name} was trained with")
        break
    return Finding(file, f"{file.stat().st_size:,} bytes")


def _directory(directory: Path) -> Finding:
    try:
        files = checkpoint.verify(directory)["files"]
    except CheckpointError as e:
        return Finding(directory, "", e.message)
    return Finding(directory, f"{len(files)} files, {sum(entry['size'] for entry in files.values()):,} bytes")


def _json(file: Path) -> Finding:
    try:
        manifest.read_json(file)
    except CheckpointError as e:
        return Finding(file, "", e.message)
    return Finding(file, f"{file.stat().st_size:,} bytes")


def _json_lines(file: Path) -> Iterator[Finding]:
    if not file.is_file():
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line)
        except ValueError:
            is_last = number == len(lines) and not text.endswith("\n")
            words = (
                "half a line at the end: the run was killed there, a resume mends it"
                if is_last
                else f"line {number} is no JSON"
            )
            yield Finding(file, "", words)
            return
    yield Finding(file, f"{len(lines):,} lines")
