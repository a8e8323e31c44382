"""`llmtune export RUN`: write a run's model for others to use, each form checked against the checkpoint."""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, startup
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.config.schema import ExportVerbConfig


PARITY = "parity.json"
MOST_LOGITS = 2**26  # of one batch to compare: 256 MiB
MOST_TOKENS = 20_000  # of a language model to compare


def run(args: list[str], options: "Options") -> int:
    config = compose("export", args, config_dir=options.config_dir).config
    parity, directory = export_run(config)
    tell_parity(parity, directory)
    return 0


def export_run(config: "ExportVerbConfig") -> tuple[dict[str, Any], Path]:
    """Write every export; returns what parity.json holds of them, and the folder. A folder appears complete or not at all.

    Raises:
        ModelError: an export does not give what the checkpoint gives; it is not kept.
    """
    with startup.importing():
        from llmtune.commands import rows, runs
        from llmtune.data.clean import registry as cleaners
        from llmtune.errors import DataError
        from llmtune.evaluation import thresholds
        from llmtune.export import Bundle, parity, registry
        from llmtune.export.registry import refuse_unmergeable
        from llmtune.files import make_folder, remove_leftovers, sync, write_json
        from llmtune.tasks.base import Draw
        from llmtune.training import manifest, precision
        from llmtune.training.restore import restore, restore_opened

    registry.require(config.export)
    precision.set_up(config.hardware, exact=True)
    directory = runs.run_of(config.run)
    trained = runs.stage_config(directory)
    restored = restore(config.run, which=config.checkpoint)
    task, ready = restored.task(), rows.of_run(trained, restored)
    rows_from = next((name for name in ("test", "validation", "train") if name in ready.splits), None)
    if rows_from is None:
        raise DataError("the run has no rows to compare an export on", where=str(directory))
    split = ready.splits[rows_from]
    at_once, at_most = _rows_to_compare(restored)
    num_rows = min(config.parity_rows, at_most, split.num_rows)
    card = _facts(trained, directory, restored.directory)
    if changed := restored.facts.get("clean"):
        card["texts were cleaned"] = cleaners.told(changed)
    if moved := restored.facts.get("thresholds"):
        card["thresholds"] = thresholds.told(moved, restored.facts["task"]["label_names"])
    model = restored.model.eval()
    refuse_unmergeable(config.export, model)
    opened = partial(restore_opened, restored.directory)
    bundle = Bundle(model, restored.tokenizer_dir, restored.facts, card, opened)
    target = Path(config.output) if config.output else directory / "export"
    for name in config.export:
        _refuse_foreign(target / name)
    make_folder(target)
    remove_leftovers(target)
    found = {}
    for name, export in config.export.items():
        console.notice(f"exporting {name}, compared with the checkpoint on {num_rows:,} {rows_from} rows")
        final, temporary, old = target / name, *(target / f".tmp-{name}{kind}.{os.getpid()}" for kind in ("", "-old"))
        _remove(temporary, old)  # a killed process had the same number, as in a container
        try:
            registry.write(export, bundle, temporary)
            chunks = (range(i, min(i + at_once, num_rows)) for i in range(0, num_rows, at_once))
            batches = (_collate(task, split, indices, Draw(trained.seed, 0, training=False)) for indices in chunks)
            compared = parity.check(export, bundle, temporary, batches)
            manifest.write(temporary, without=["README.md"], checkpoint=restored.directory.name)
            if final.exists():  # an earlier export of this run
                others = {other: facts for other, facts in _parity_of(target).items() if other != name}
                write_json(target / PARITY, {"exports": others})  # what it tells is always true
                final.rename(old)
            temporary.rename(final)
            sync(target)
        finally:
            _remove(temporary, old)
        found[name] = {**export.model_dump(), "checkpoint": restored.directory.name, "rows_from": rows_from, **compared}
        write_json(target / PARITY, {"exports": {**_parity_of(target), name: found[name]}})
    return {"exports": found}, target


def missing(directory: Path, exports: dict[str, Any]) -> dict[str, Any]:
    """Those exports that a run does not hold yet of its best checkpoint."""
    best, known = (directory / "checkpoints" / "best").resolve().name, _parity_of(directory / "export")
    asked = {name: {**export.model_dump(), "checkpoint": best} for name, export in exports.items()}
    return {name: exports[name] for name, facts in asked.items() if not facts.items() <= known.get(name, {}).items()}


def _parity_of(target: Path) -> dict[str, Any]:
    """What parity.json tells of the exports that are still there."""
    from llmtune.training.manifest import read_json

    told = read_json(target / PARITY)["exports"] if (target / PARITY).is_file() else {}
    return {name: facts for name, facts in told.items() if (target / name).is_dir()}


def _remove(*directories: Path) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def _refuse_foreign(directory: Path) -> None:
    """A folder that is no earlier export would be lost."""
    from llmtune.errors import ResourceError

    if directory.exists() and not (directory / "llmtune.json").is_file():
        raise ResourceError(
            "a folder that is no export is in the way", where=str(directory), remedy="choose another one: output=..."
        )


def _rows_to_compare(restored: Any) -> tuple[int, int]:
    """How many rows at once, and at most: a language model answers each token with a number for each that there is."""
    from llmtune.models.spec import NAMING

    task = restored.facts["task"]
    if task["type"] not in (*NAMING, "regression"):
        logits_per_row = task["max_length"] * restored.model.config.vocab_size
        return max(1, min(32, MOST_LOGITS // logits_per_row)), max(1, MOST_TOKENS // task["max_length"])
    return 32, 10**9


def tell_parity(parity: dict[str, Any], directory: Path) -> None:
    rows = [
        (name, f"{directory / name}\n{facts['rows']:,} rows compared, largest difference {facts['max_difference']:.1e}")
        for name, facts in parity["exports"].items()
    ]
    for facts in parity["exports"].values():
        if rounding := facts.get("rounding"):
            changed = f"{rounding['argmax_differences']:,} of {rounding['answers']:,} answers"
            told = f"{facts['outtype']} weights change logits by up to {rounding['max_difference']:.1e}, and {changed}"
            rows.append(("", told))
    console.result_table("exported", rows)


def _collate(task: Any, split: Any, indices: range, draw: Any) -> Any:
    """Rows of several texts are read as one: what comes out has to agree, whatever it means, and an export knows no places."""
    stored = [{**row, "id": i} for row, i in zip(split.rows(list(indices)), indices, strict=True)]
    return task.collate([{k: v for k, v in row.items() if k != "position_ids"} for row in stored], draw)


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
