"""`llmtune plan`: what training would need, measured on a few steps; nothing of it is kept."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llmtune import console, startup
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.training.forecast import Forecast


def run(args: list[str], options: "Options") -> int:
    composed = compose("plan", args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    with startup.importing():
        from llmtune.commands import stage

    with tempfile.TemporaryDirectory(prefix=".tmp-plan-", dir=_existing(Path(composed.config.output_dir))) as folder:
        found, remedies = stage.forecast_stage(composed.config, composed.tree, Path(folder))
    rows = _rows(found)
    rows += [("it does not fit: try" if i == 0 else "", remedy) for i, remedy in enumerate(remedies)]
    console.result_table("plan", rows)
    return 5 if remedies else 0


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it: it lies on the same disk."""
    return next(place for place in [folder, *folder.resolve().parents] if place.is_dir())


def _rows(found: "Forecast") -> list[tuple[str, str]]:
    total = found.train_seconds + found.evaluate_seconds + found.save_seconds
    parts = [("training", found.train_seconds), ("evaluations", found.evaluate_seconds), ("saves", found.save_seconds)]
    rate = f"{found.tokens_per_second:,.0f} tokens/s" if found.fits else "not measured: the longest batch does not fit"
    return [
        ("steps", f"{found.total_steps:,}"),
        ("throughput", rate),
        ("time to the end", f"{_clock(total)} ({', '.join(f'{name} {_clock(s)}' for name, s in parts if s)})"),
        ("memory at the start", _size(found.base_bytes)),
        ("peak in training", _size(found.train_bytes)),
        *([("peak in evaluation", _size(found.evaluate_bytes))] if found.evaluate_bytes else []),
        ("peak in a save", _size(found.save_bytes)),
        ("memory there is", _size(found.free_bytes)),
        ("a checkpoint", f"{_size(found.checkpoint_bytes)} on the disk"),
    ]


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours and not minutes:
        return f"{seconds:.1f} s"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
