"""Rows set aside for validation and test, where the data has none of its own."""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from llmtune.config.sections.data import DataConfig
from llmtune.config.sections.split import SplitConfig
from llmtune.data.sources import SPLITS, Also, is_named
from llmtune.data.split import folds, groups, rows, times
from llmtune.data.split.rows import Sides
from llmtune.data.spool import Spool
from llmtune.errors import DataError

# From what there is to divide, the config of the type, and how many rows are wanted, to the rows of each side.
DIVIDERS: dict[str, Callable[[rows.Rows, SplitConfig, dict[str, int]], Sides]] = {
    "random": rows.random,
    "stratified": rows.stratified,
    "contiguous": rows.contiguous,
    "grouped": groups.grouped,
    "time": times.newest,
    "kfold": folds.one_fold,
}
_COLUMNS = {"group": "group_column", "time": "time_column"}


def also_read(config: SplitConfig, data: DataConfig) -> Also:
    """The columns of the train rows that a split goes by, for `sources.load`; none where nothing is to be set aside."""
    if not _to_set_aside(config, {name for name in SPLITS if is_named(data, name)}):
        return {}
    columns = {name: (getattr(config, key, None), f"split.{key}") for name, key in _COLUMNS.items()}
    return {name: (column, key) for name, (column, key) in columns.items() if column is not None}


def split(
    tables: Mapping[str, pa.Table], config: SplitConfig, *, seed: int, stratify: bool, spool: Spool | None = None
) -> dict[str, pa.Table]:
    """Given splits as they are; those that are missing are taken from the train rows, the test first. Rows keep their order.

    Args:
        tables: of `sources.load`, with the columns of `also_read`.
        config: the fractions, of the number of train rows before anything is set aside, and how the rows are chosen.
        seed: of the draw.
        stratify: whether the labels are classes, whose shares are to be kept.
        spool: makes the tables; None: they are held in memory.

    Raises:
        DataError: there are too few rows, groups or times; or a group or time is missing or cannot be read.
        ConfigError: split=kfold without a fold.
    """
    train = tables["train"]
    wanted = {name: max(1, round(train.num_rows * share)) for name, share in _to_set_aside(config, tables).items()}
    if sum(wanted.values()) >= train.num_rows:
        told = " and ".join(f"{size} for {name}" for name, size in wanted.items())
        raise DataError(
            f"{train.num_rows} train rows are too few to set aside {told}",
            remedy="add rows, name files for these splits, or set split.validation_fraction and split.test_fraction to 0",
        )
    kept = train.drop_columns([name for name in _COLUMNS if name in train.column_names])
    if not wanted:
        return {**tables, "train": kept}
    spool = spool or Spool()
    is_taken, made = np.zeros(train.num_rows, dtype=bool), {}
    for name, chosen in DIVIDERS[config.type](rows.Rows(train, seed, stratify), config, wanted).items():
        is_chosen = np.zeros(train.num_rows, dtype=bool)
        is_chosen[chosen] = True
        is_taken |= is_chosen
        made[name] = spool.filtered(kept, is_chosen)
    parts = {**tables, **made, "train": spool.filtered(kept, ~is_taken)}
    return {name: parts[name] for name in SPLITS if name in parts}


def _to_set_aside(config: SplitConfig, given: Mapping[str, pa.Table] | set[str]) -> dict[str, float]:
    """The splits that are to be made, with their share of the rows."""
    validation = 1 / config.num_folds if config.type == "kfold" else config.validation_fraction
    shares = {"test": config.test_fraction, "validation": validation}
    return {name: share for name, share in shares.items() if share > 0 and name not in given}
