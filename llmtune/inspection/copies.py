"""Rows that say the same as others: duplicates within a split, contradictions, and rows that stand in two splits."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data import duplicates
from llmtune.data.spool import Spool
from llmtune.inspection.findings import Example, Finding, examples, place

THRESHOLD = 0.8  # of clean=near_duplicates and near_leaks as packaged
_LARGEST_CLUSTERS = 8
_ROWS_OF_CLUSTER = 4  # that are shown


@dataclass(frozen=True)
class Cluster:
    """Rows of a split that say nearly the same: how many, some of them, and rows by label."""

    split: str
    size: int
    rows: tuple[Example, ...]
    labels: dict[str, int]


class Copies:
    """Finds what stands there twice.

    Args:
        tables: rows by split, the train rows first.
        made: the splits that were set aside from the train rows, and not given.
        has_classes: whether labels are classes, which can contradict each other.
        shingle_size: characters of a shingle.
        spool: holds what grows with the rows.
    """

    def __init__(
        self, tables: Mapping[str, pa.Table], *, made: Collection[str], has_classes: bool, shingle_size: int, spool: Spool
    ):
        self._tables, self._made, self._has_classes = tables, made, has_classes
        self._columns = {split: text_columns(table) for split, table in tables.items()}
        self._near = {"threshold": THRESHOLD, "shingle_size": shingle_size, "spool": spool}
        self._has_texts = "features" not in tables["train"].column_names
        self._facts = {"shingle_size": shingle_size}

    def within(self, split: str) -> tuple[list[Finding], list[Cluster]]:
        """The duplicates of a split, and its largest clusters of near ones."""
        table, columns = self._tables[split], self._columns[split]
        rows_N = np.arange(table.num_rows)
        exact_N = duplicates.exact_clusters(columns)
        near_N = duplicates.near_clusters(columns, **self._near) if self._has_texts else exact_N
        findings = []
        for kind, first_N, mask in (
            ("duplicates" if self._has_texts else "same_numbers", exact_N, exact_N != rows_N),
            ("near_duplicates", near_N, (near_N != rows_N) & (exact_N == rows_N)),
        ):
            rows = np.flatnonzero(mask)
            if len(rows):
                notes = [f"as {twin}" for twin in _places(table, first_N[rows])]
                findings.append(Finding(kind, split, len(rows), table.num_rows, examples(table, rows, notes), self._facts))
        if self._has_classes and "label" in table.column_names:
            findings += self._contradictions(split, exact_N, near_N)
        return findings, self._clusters(split, near_N)

    def across(self) -> Iterator[Finding]:
        """Rows of each split that a split before it has, too."""
        for first, second in combinations(self._tables, 2):
            table, other = self._tables[second], self._tables[first]
            exact_N = duplicates.exact_matches(self._columns[second], self._columns[first])
            near_N = np.full(len(exact_N), -1)
            if self._has_texts:
                near_N = duplicates.near_matches(self._columns[second], self._columns[first], **self._near)
            if not self._has_texts:
                kinds = ("leaked_numbers", "leaked_numbers")
            elif {first, second} <= {"train", *self._made}:  # both come from the same file
                kinds = ("split_leaks", "near_split_leaks")
            else:
                kinds = ("leaks", "near_leaks") if first == "train" else ("held_out_twice", "held_out_twice")
            for kind, found_N, mask in (
                (kinds[0], exact_N, exact_N >= 0),
                (kinds[1], near_N, (near_N >= 0) & (exact_N < 0)),
            ):
                rows = np.flatnonzero(mask)
                if len(rows):
                    notes = [f"as {twin}" for twin in _places(other, found_N[rows])]
                    facts = {**self._facts, "other": first}
                    yield Finding(kind, second, len(rows), table.num_rows, examples(table, rows, notes), facts)

    def _contradictions(self, split: str, exact_N: np.ndarray, near_N: np.ndarray) -> Iterator[Finding]:
        table = self._tables[split]
        label_set = table["label"].unique()
        codes_N = pc.index_in(table["label"], value_set=label_set).to_numpy()
        exact = _unlike(exact_N, codes_N)
        for kind, first_N, mask in (
            ("contradictions" if self._has_texts else "contradicting_numbers", exact_N, exact),
            ("near_contradictions", near_N, _unlike(near_N, codes_N) & ~exact),
        ):
            rows = np.flatnonzero(mask)
            if len(rows):
                rows = rows[np.argsort(first_N[rows], kind="stable")]
                notes = [str(label) for label in table["label"].take(pa.array(rows[:10])).to_pylist()]
                yield Finding(kind, split, len(rows), table.num_rows, examples(table, rows, notes), self._facts)

    def _clusters(self, split: str, first_N: np.ndarray) -> list[Cluster]:
        table = self._tables[split]
        firsts, sizes = np.unique(first_N, return_counts=True)
        order = np.argsort(-sizes, kind="stable")[:_LARGEST_CLUSTERS]
        found = []
        for first, size in zip(firsts[order], sizes[order], strict=True):
            if size < 2:
                break
            members = np.flatnonzero(first_N == first)
            labels: dict[str, int] = {}
            if "label" in table.column_names:
                counted = table["label"].take(pa.array(members)).value_counts()
                labels = {str(c["values"]): c["counts"] for c in counted.to_pylist()}
            found.append(Cluster(split, int(size), examples(table, members[:_ROWS_OF_CLUSTER]), labels))
        return found


def text_columns(table: pa.Table) -> list[pa.ChunkedArray]:
    """The texts of a table; numbers as texts."""
    if "features" in table.column_names:
        parts = [
            pc.binary_join(
                pa.ListArray.from_arrays(chunk.offsets, pc.cast(chunk.values, pa.string())),
                " ",
            )
            for chunk in table["features"].chunks
        ]
        return [pa.chunked_array(parts, pa.string())]
    return [table[name] for name in ("text", "text_pair") if name in table.column_names]


def _unlike(first_N: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """Whether a row is of a cluster whose rows have more than one label."""
    has_two = np.zeros(len(first_N), bool)
    has_two[first_N[codes_N != codes_N[first_N]]] = True
    return has_two[first_N]


def _places(table: pa.Table, rows: np.ndarray) -> list[str]:
    shown = table.select(["file", "row"]).take(pa.array(rows[:10]))
    return [place(row) for row in shown.to_pylist()]
