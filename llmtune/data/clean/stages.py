"""Cleaning on the way of the data: texts, lengths and duplicates of each given split; then leaks and wrong labels of train.

In both places the cleaners act in the order in which the config names them.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.config.sections.clean import CleanConfig
from llmtune.data import forms
from llmtune.data.accounting import Finding, Ledger
from llmtune.data.clean import filters
from llmtune.data.clean.registry import TEXT_CLEANERS, Cleaner, text_cleaners
from llmtune.data.spool import Spool, batches_of
from llmtune.errors import DataError

_ROWS, _BYTES = 20_000, 8 << 20  # that are cleaned at once
ACROSS_SPLITS = ("leaks", "mislabelled")

Tables = dict[str, pa.Table]


def before_split(tables: Tables, clean: Mapping[str, CleanConfig], *, ledger: Ledger, spool: Spool) -> Tables:
    """The given splits with their texts changed, and without rows that are unfit or stand there twice.

    Raises:
        DataError: no row of a split is left.
    """
    steps = [(name, config) for name, config in clean.items() if config.type not in ACROSS_SPLITS]
    for is_text, run in groupby(steps, key=lambda step: step[1].type in TEXT_CLEANERS):
        some = dict(run)
        for split, table in tables.items():
            if is_text:
                tables[split] = _changed(split, table, text_cleaners(some), ledger=ledger, spool=spool)
                continue
            for name, config in some.items():
                table = tables[split]
                if config.type == "length":
                    found = filters.length(table, config)
                else:
                    found = filters.duplicates(table, config, spool=spool)
                tables[split] = _sifted(split, table, name, config.action, [*found], ledger=ledger, spool=spool)
    return tables


def after_split(tables: Tables, clean: Mapping[str, CleanConfig], *, seed: int, ledger: Ledger, spool: Spool) -> Tables:
    """The splits without train rows that are also held out, or wrongly labelled.

    Raises:
        DataError: no train row is left.
    """
    held_out = {name: table for name, table in tables.items() if name != "train"}
    for name, config in clean.items():
        if config.type in ACROSS_SPLITS:
            train = tables["train"]
            if config.type == "leaks":
                found = filters.leaks(train, held_out, config, spool=spool)
            else:
                found = filters.mislabelled(train, config, seed=seed)
            tables["train"] = _sifted("train", train, name, config.action, [*found], ledger=ledger, spool=spool)
    return tables


def cleaned(table: pa.Table, cleaner: Cleaner, *, spool: Spool) -> pa.Table:
    """All rows of a table, with their texts changed."""
    return spool.table(_cleaned(batch, cleaner)[0] for batch in batches_of(table, rows=_ROWS, size=_BYTES))


def _changed(split: str, table: pa.Table, cleaners: Mapping[str, Cleaner], *, ledger: Ledger, spool: Spool) -> pa.Table:
    """The table with its texts changed by one cleaner after the other."""
    num_changed = dict.fromkeys(cleaners, 0)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in batches_of(table, rows=_ROWS, size=_BYTES):
            for name, cleaner in cleaners.items():
                batch, num = _cleaned(batch, cleaner)
                num_changed[name] += num
            yield batch

    changed = spool.table(batches())
    for name, num in num_changed.items():
        ledger.enter(split, f"clean.{name}", rows_in=table.num_rows, rows_out=table.num_rows, changed=num)
    return changed


def _cleaned(batch: pa.RecordBatch, cleaner: Cleaner) -> tuple[pa.RecordBatch, int]:
    """A batch with its texts changed, and in how many rows."""
    is_changed = np.zeros(batch.num_rows, bool)
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in forms.CONVERSATIONS:
        if name in columns:
            columns[name] = forms.with_contents(columns[name], cleaner)
    for name in ("text", "text_pair"):
        if name in columns:
            old = columns[name]
            columns[name] = forms.text_of(columns) if "messages" in columns else cleaner(old)
            is_changed |= pc.fill_null(pc.not_equal(old, columns[name]), False).to_numpy(zero_copy_only=False)
    return pa.RecordBatch.from_pydict(columns), int(is_changed.sum())


def _sifted(
    split: str, table: pa.Table, name: str, action: str, findings: list[Finding], *, ledger: Ledger, spool: Spool
) -> pa.Table:
    """The table without the rows that were found fault with, or as it was where they are flagged."""
    ledger.enter_findings(split, f"clean.{name}", table, findings, action=action)
    if action == "flag" or not findings:
        return table
    keep = np.ones(table.num_rows, bool)
    for finding in findings:
        keep[finding.rows] = False
    if not keep.any():
        told = ", ".join(f"{len(finding.rows):,} {finding.reason}" for finding in findings)
        raise DataError(
            f"clean.{name} leaves no {split} rows: {told}", remedy=f"change it, clean.{name}.action=flag, or ~clean.{name}"
        )
    return spool.filtered(table, keep)
