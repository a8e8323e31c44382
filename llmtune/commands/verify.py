"""`llmtune verify RUN`: check a run, a checkpoint or an export against its manifests."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmtune import console
from llmtune.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    if args:
        raise UsageError(f"verify takes no overrides: '{args[0]}'", remedy="llmtune verify RUN")
    path = Path(options.words[0])
    if not path.exists():
        raise CheckpointError(f"there is no {path}", remedy="name a run, such as runs/lstm_cls/latest")
    from llmtune.training.verify import findings

    found = list(findings(path))
    rows = [[str(f.place.relative_to(path)), "damaged" if f.problem else "ok", f.problem or f.facts] for f in found]
    console.jobs_table(f"verified {path}", ["what", "state", "facts"], rows)
    num_bad = sum(f.problem is not None for f in found)
    if num_bad:
        raise CheckpointError(
            f"{num_bad} of {len(found)} things are not what they were when they were written", where=str(path)
        )
    return 0
