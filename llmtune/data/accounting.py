"""What became of the source rows: how many came into each stage and left it, how many were changed, and why others are gone.

An account is JSON: for each split its stages in order, {"stage", "rows_in", "rows_out"} and, where there are any, "left_out"
and "flagged" (reason -> rows), "changed" and "truncated" (rows), "blocks" or "packed rows" that were made of them, and
"examples" of rows that were found fault with.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

DROPPED = "dropped.jsonl"  # all rows that were left out or flagged for a reason of their own, one a line
NUM_EXAMPLES = 5
_SHOWN = 120  # characters of an example's text
_ROWS = 20_000  # that are written at once
_ENCODER = json.JSONEncoder(ensure_ascii=False)

Account = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Finding:
    """Rows of a table that a filter finds fault with.

    Attributes:
        reason: in a few words.
        rows: their indices, int64 [F].
        details: of each row, for whoever looks into it, such as the place of its twin; None: the reason says all.
    """

    reason: str
    rows: np.ndarray
    details: Sequence[str] | None = None


class Ledger:
    """Keeps an account while rows are prepared.

    Args:
        directory: where `DROPPED` is written, if there is anything to write.
    """

    def __init__(self, directory: Path):
        self._file = directory / DROPPED
        self.account: Account = {}

    def enter(self, split: str, stage: str, *, rows_in: int, rows_out: int, **facts: Any) -> None:
        """One stage of one split; facts that are 0 or empty go without saying."""
        told = {name: value for name, value in facts.items() if value}
        self.account.setdefault(split, []).append({"stage": stage, "rows_in": rows_in, "rows_out": rows_out, **told})

    def enter_read(self, split: str, *, rows: int, allowed: int, taken: int, dropped: Mapping[str, int] | None = None) -> None:
        """How many rows the source has, how many of them `data.where` allows, and `data.max_rows`; unfit ones by reason."""
        dropped = dropped or {}
        left_out = {"data.where": rows - allowed - sum(dropped.values()), **dropped, "data.max_rows": allowed - taken}
        left_out = {reason: num for reason, num in left_out.items() if num}
        self.enter(split, "read", rows_in=rows, rows_out=taken, left_out=left_out)

    def enter_split(self, before: Mapping[str, pa.Table], after: Mapping[str, pa.Table]) -> None:
        """What was set aside from the train rows, and how many a split has no use for."""
        made = {name: table.num_rows for name, table in after.items() if name not in before}
        num_gone = before["train"].num_rows - after["train"].num_rows
        if not made and not num_gone:
            return
        left_out = {f"for {name}": num for name, num in made.items()} | {"for no split": num_gone - sum(made.values())}
        left_out = {reason: num for reason, num in left_out.items() if num > 0}
        self.enter("train", "split", rows_in=before["train"].num_rows, rows_out=after["train"].num_rows, left_out=left_out)
        for name, num in made.items():
            self.enter(name, "split", rows_in=num, rows_out=num)

    def enter_findings(self, split: str, stage: str, table: pa.Table, findings: Sequence[Finding], *, action: str) -> None:
        """The rows of a table that a filter finds fault with, each written to `DROPPED`; `action`: 'drop' or 'flag'."""
        counts = {finding.reason: len(finding.rows) for finding in findings}
        num_dropped = sum(counts.values()) if action == "drop" else 0
        self.enter(
            split,
            stage,
            rows_in=table.num_rows,
            rows_out=table.num_rows - num_dropped,
            **{"left_out" if action == "drop" else "flagged": counts},
            examples=self._write({"split": split, "stage": stage, "action": action, **row} for row in _told(table, findings)),
        )

    def _write(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write rows; returns the first few, with short texts."""
        examples: list[dict[str, Any]] = []
        file = None
        try:
            for row in rows:
                file = file or self._file.open("a", encoding="utf-8")
                file.write(_ENCODER.encode(row) + "\n")
                if len(examples) < NUM_EXAMPLES:
                    place = f"{row['file']}:{row['row']}"
                    shown = {name: row[name] for name in ("reason", "detail", "label") if name in row}
                    examples.append({"row": place, **shown, "text": (row["text"] or "")[:_SHOWN]})
        finally:
            if file is not None:
                file.close()
        return examples


def table_of(account: Account) -> tuple[list[str], list[list[str]]]:
    """An account for the eye: header, and a line for each stage with a cell for each split."""
    stages = list(dict.fromkeys(entry["stage"] for entry in account["train"]))
    for entries in account.values():
        for at, entry in enumerate(entries):
            if entry["stage"] not in stages:
                stages.insert(stages.index(entries[at - 1]["stage"]) + 1 if at else 0, entry["stage"])
    cells = {(split, entry["stage"]): _cell(entry) for split, entries in account.items() for entry in entries}
    return ["stage", *account], [[stage, *(cells.get((split, stage), "") for split in account)] for stage in stages]


def _cell(entry: dict[str, Any]) -> str:
    parts = [f"-{num:,} {reason}" for reason, num in entry.get("left_out", {}).items()]
    parts += [f"{num:,} flagged: {reason}" for reason, num in entry.get("flagged", {}).items()]
    parts += [f"{entry[name]:,} {name}" for name in ("changed", "truncated", "blocks", "packed rows") if name in entry]
    return f"{entry['rows_out']:,}" + (f" ({', '.join(parts)})" if parts else "")


def _told(table: pa.Table, findings: Sequence[Finding]) -> Iterator[dict[str, Any]]:
    """What is written of each row, in the order of the table."""
    if not findings:
        return
    rows = np.concatenate([finding.rows for finding in findings])
    reasons = [finding.reason for finding in findings for _ in finding.rows]
    details = [detail for finding in findings for detail in (finding.details or [None] * len(finding.rows))]
    order = np.argsort(rows, kind="stable")
    shown = table.select([name for name in ("file", "row", "label", "text", "text_pair") if name in table.column_names])
    for start in range(0, len(order), _ROWS):
        part = order[start : start + _ROWS]
        for at, row in zip(part, shown.take(pa.array(rows[part])).to_pylist(), strict=True):
            detail = {"detail": details[at]} if details[at] is not None else {}
            yield {"reason": reasons[at], **detail, **row}
