"""The train rows as augmenters change them: read, shown and written."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from llmtune import console
from llmtune.commands.preparing import prepare_stage
from llmtune.config.schema import AugmentVerbConfig
from llmtune.config.sections.data import DataConfig
from llmtune.data import sources
from llmtune.data.accounting import Ledger
from llmtune.data.augment import registry as augmenters
from llmtune.data.augment.comparison import compare, pieces_of
from llmtune.data.spool import Spool
from llmtune.errors import DataError
from llmtune.files import replacing
from llmtune.randomness import generator
from llmtune.tasks.augmented import AugmentedRows
from llmtune.tasks.prepare import load_splits


def train_rows(config: AugmentVerbConfig, scratch: Path) -> AugmentedRows:
    """The train rows of a config, as its augmenters change them; `scratch` holds large tables."""
    augmenter = augmenters.build(config.augment)  # stops before the rows are read if a package is missing
    how = {"seed": config.seed, "spool": Spool(scratch), "ledger": Ledger(scratch)}
    table = load_splits(config.data, config.split, config.clean, config.task, **how)["train"]
    stored = prepare_stage(config).splits["train"] if config.task.type == "masked_lm" else None  # it leaves out blank rows
    return AugmentedRows(table, augmenter, seed=config.seed, stored=stored)


def show(rows: AugmentedRows, *, seed: int, count: int, epoch: int) -> None:
    """Some rows, drawn with the seed, before and after."""
    drawn = generator(seed, "preview").permutation(len(rows))[:count]
    chosen = set(drawn.tolist())
    for row in rows:
        if row["id"] not in chosen:
            continue
        label = f", {row['label']}" if row.get("label") is not None else ""
        for name, text in rows.texts(row, epoch=epoch).items():
            before, after = compare(pieces_of(row[name]), pieces_of(text))
            second = ", second text" if name == "text_pair" else ""
            console.before_and_after(f"{row['file']}:{row['row']}{label}{second}, epoch {epoch}", before, after)


def write(rows: AugmentedRows, output: Path, data: DataConfig, *, epochs: range) -> None:
    """All rows of some epochs, one epoch after another, in the columns of their source."""
    columns = {"text": data.text_column, "text_pair": data.text_pair_column, "label": data.label_column}
    changed = 0
    with (
        replacing(output) as file,
        console.progress(f"writing {output}", total=len(rows) * len(epochs), unit="rows") as advance,
    ):
        write = _writer(file, output.suffix, [name for name in columns.values() if name])
        for epoch in epochs:
            for row in rows:
                texts = rows.texts(row, epoch=epoch)
                changed += any(row[name] != text for name, text in texts.items())
                named = {columns[name]: value for name, value in (row | texts).items() if columns.get(name)}
                write(named | {"source_file": row["file"], "source_row": row["row"], "epoch": epoch})
                advance()
    written = len(rows) * len(epochs)
    console.result_table("augmented", [("rows", f"{written:,}, {changed:,} of them changed"), ("file", str(output))])


def _writer(file: TextIO, suffix: str, columns: list[str]) -> Callable[[dict[str, Any]], Any]:
    if suffix == ".csv":
        writer = csv.DictWriter(file, [*columns, "source_file", "source_row", "epoch"], restval="", lineterminator="\n")
        writer.writeheader()
        return writer.writerow
    return lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")


def require_place(output: Path, data: DataConfig) -> None:
    """Stop before anything is read if the file cannot be written, or is one that the rows come from."""
    if not output.parent.is_dir() or output.is_dir():
        raise DataError("is no file that could be written", where=str(output), remedy="output=FILE, in a folder that exists")
    if output.exists() and any(output.samefile(path) for path in sources.files(data)):
        raise DataError("the rows would take the place of their source", where=str(output), remedy="choose another output")
