"""`llmtune export RUN`: write a run's model for others to use, each form checked against the checkpoint."""

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.config.schema import ExportVerbConfig


def run(args: list[str], options: "Options") -> int:
    config = compose("export", args, config_dir=options.config_dir).config
    parity, directory = export_run(config)
    tell_parity(parity, directory)
    return 0


def export_run(config: "ExportVerbConfig") -> tuple[dict[str, Any], Path]:
    """Write every export; returns what parity.json holds, and the folder. A folder appears complete or not at all.

    Raises:
        ModelError: an export does not give what the checkpoint gives; it is not kept.
    """
    from llmtune.commands import runs, stage
    from llmtune.errors import DataError
    from llmtune.export import Bundle, parity, registry
    from llmtune.tasks.base import Draw
    from llmtune.training import precision
    from llmtune.training.checkpoint import write_json
    from llmtune.training.restore import restore

    precision.set_up(config.hardware, exact=True)
    directory = runs.run_of(config.run)
    trained = runs.stage_config(directory)
    restored = restore(config.run, which=config.checkpoint)
    task, ready = restored.task(), stage.prepare_stage(trained)
    rows_from = next((name for name in ("test", "validation", "train") if name in ready.splits), None)
    if rows_from is None:
        raise DataError("the run has no rows to compare an export on", where=str(directory))
    split = ready.splits[rows_from]
    num_rows = min(config.parity_rows, split.num_rows)
    card = _facts(trained, directory, restored.directory)
    bundle = Bundle(restored.model.eval(), restored.tokenizer_dir, restored.facts, card)
    target = Path(config.output) if config.output else directory / "export"
    target.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"rows_from": rows_from, "exports": {}}
    for name, export in config.export.items():
        console.notice(f"exporting {name}, compared with the checkpoint on {num_rows:,} {rows_from} rows")
        temporary = target / f".tmp-{name}.{uuid.uuid4().hex[:8]}"
        try:
            registry.write(export, bundle, temporary)
            chunks = (range(i, min(i + 32, num_rows)) for i in range(0, num_rows, 32))
            batches = (_collate(task, split, indices, Draw(trained.seed, 0, training=False)) for indices in chunks)
            found["exports"][name] = parity.check(export, bundle, temporary, batches)
            final = target / name
            if final.exists():  # an earlier export of this run
                final.rename(temporary.with_suffix(".old"))
            temporary.rename(final)
        finally:
            for leftover in (temporary, temporary.with_suffix(".old")):
                shutil.rmtree(leftover, ignore_errors=True)
    write_json(target / "parity.json", found)
    return found, target


def tell_parity(parity: dict[str, Any], directory: Path) -> None:
    rows = [
        (name, f"{directory / name}\n{facts['rows']:,} rows compared, largest difference {facts['max_difference']:.1e}")
        for name, facts in parity["exports"].items()
    ]
    console.result_table("exported", rows)


def _collate(task: Any, split: Any, indices: range, draw: Any) -> Any:
    rows = split.rows(list(indices))
    return task.collate([{**row, "id": i} for row, i in zip(rows, indices, strict=True)], draw)


def _facts(trained: Any, directory: Path, checkpoint: Path) -> dict[str, Any]:
    """What a model card says."""
    from llmtune.training import run_dir

    facts: dict[str, Any] = {"task": trained.task.type, "checkpoint": checkpoint.name, "seed": trained.seed}
    if trained.data.type == "files":
        names = trained.data.train_file
        facts["data"] = names if isinstance(names, str) else ", ".join(names)
    else:
        facts["data"] = trained.data.name
    if run_dir.is_finished(directory):
        result = run_dir.read_result(directory)
        facts["validation"] = result["metrics"]
    return facts
