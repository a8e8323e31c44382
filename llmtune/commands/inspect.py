"""`llmtune inspect`: a look at the rows before training; tells what it saw, and the override that deals with it."""

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, startup
from llmtune.config.compose import Composed, compose
from llmtune.config.schema import TrainConfig

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.inspection.inspect import Inspection

FOLDER = "inspect"
_LINES = 3  # examples of a finding that are shown on the terminal


def run(args: list[str], options: "Options") -> int:
    composed = compose("inspect", args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    with startup.importing():
        from llmtune.commands import looking  # torch from here on

    with tempfile.TemporaryDirectory(prefix="llmtune-") as scratch:
        found = looking.look(composed.config, Path(scratch))
    folder = _write(composed, found, args)
    _tell(found, args, folder)
    return 0


def _write(composed: Composed, found: "Inspection", args: list[str]) -> Path:
    """inspect.json and inspect.html, in a new folder beside the runs of the same config."""
    from llmtune.files import new_folder, write_json
    from llmtune.inspection import page
    from llmtune.inspection.inspect import as_json
    from llmtune.training.checkpoint import point

    config: TrainConfig = composed.config
    facts = [("command", shlex.join(["llmtune", "inspect", *args])), ("data", _source(config)), ("task", config.task.type)]

    def fill(folder: Path) -> None:
        write_json(folder / "inspect.json", {"command": facts[0][1], **as_json(found)})
        page.write(folder / "inspect.html", found, title=f"inspect {composed.recipe or config.task.type}", facts=facts)

    folder = new_folder(config.folder / FOLDER, fill)
    point(folder.parent / "latest", folder)
    return folder


def _source(config: TrainConfig) -> str:
    data = config.data
    if data.type == "hub":
        return data.name
    given = [data.train_file, data.validation_file, data.test_file]
    return ", ".join(name for names in given if names for name in ([names] if isinstance(names, str) else names))


def _tell(found: "Inspection", args: list[str], folder: Path) -> None:
    header, rows = _splits(found)
    console.jobs_table("splits", header, rows)
    header = ["", "what", "split", "rows", "share", "for example", "override"]
    console.jobs_table("findings", header, [_cells(finding) for finding in found.findings])
    if not found.findings:
        console.notice("nothing odd was found")
    told = [("page", str(folder / "inspect.html"))]
    if found.remedy:
        rest = [arg for arg in args if not arg.startswith("clean=")] if found.remedy[0].startswith("clean=") else args
        told = [("all of it", shlex.join(["llmtune", "train", *rest, *found.remedy])), *told]
    console.result_table("what to do", told)


def _splits(found: "Inspection") -> tuple[list[str], list[list[str]]]:
    """Rows and lengths of each split: median, 95 %, longest."""
    from llmtune.inspection.inspect import quantiles

    rows = []
    for name, split in found.splits.items():
        given = "set aside" if split.is_made else f"{found.given.get(name, 0):,}"
        cells = [name, given, f"{split.rows:,}"]
        for values in (split.characters_N, split.tokens_N):
            known = quantiles(values) if values is not None and len(values) else {}
            cells.append(" / ".join(f"{known[q]:,.0f}" for q in ("50%", "95%", "max")) if known else "")
        is_cut = split.tokens_N is not None and found.max_length is not None
        cells.append(f"{int((split.tokens_N > found.max_length).sum()):,}" if is_cut else "")
        cells.append(", ".join(f"{script} {count / split.rows:.0%}" for script, count in list(split.scripts.items())[:3]))
        rows.append(cells)
    at = f" at {found.max_length:,}" if found.max_length is not None else ""
    return ["split", "given", "rows", "characters", "tokens (50 % / 95 % / longest)", f"cut{at}", "scripts"], rows


def _cells(finding: Any) -> list[str]:
    places = [e.place + (f" ({e.note})" if e.note else "") for e in finding.examples[: 1 if finding.examples else 0]]
    places += [_line(e.place) for e in finding.examples[1:_LINES]]
    share = finding.count / finding.total
    remedy = shlex.join(finding.overrides) if finding.overrides else f"({finding.advice})"
    shown = f"{share:.1%}" if share >= 0.001 else "<0.1%"
    return [finding.weight, finding.title, finding.split, f"{finding.count:,}", shown, ", ".join(places), remedy]


def _line(place: str) -> str:
    """The line alone: the file was named before."""
    return place.rpartition(":")[2]
