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
    """Finds what stands there twice. All splits are compared at once: each text is hashed a single time.

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
        self._has_texts = "features" not in tables["train"].column_names
        self._facts = {"shingle_size": shingle_size}
        columns = [
            pa.chunked_array([chunk for column in same for chunk in column.chunks], pa.string())
            for same in zip(*map(text_columns, tables.values()), strict=True)
        ]
        bounds = np.cumsum([0, *(table.num_rows for table in tables.values())]).tolist()
        self._slices = dict(zip(tables, map(slice, bounds, bounds[1:]), strict=True))
        self._exact = self._near = duplicates.exact_clusters(columns)
        if self._has_texts:
            self._near = duplicates.near_clusters(columns, threshold=THRESHOLD, shingle_size=shingle_size, spool=spool)

    def within(self, split: str) -> tuple[list[Finding], list[Cluster]]:
        """The duplicates of a split, and its largest clusters of near ones."""
        table, rows_N = self._tables[split], np.arange(self._tables[split].num_rows)
        exact_N, near_N = (_first_among(clusters[self._slices[split]]) for clusters in (self._exact, self._near))
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
        """Rows of each split that a split before it has, too; nearly: a chain of near pairs joins them."""
        for first, second in combinations(self._tables, 2):
            table, other = self._tables[second], self._tables[first]
            here, there = self._slices[second], self._slices[first]
            exact_N, near_N = (_twins(clusters[here], clusters[there]) for clusters in (self._exact, self._near))
            if not self._has_texts:
                kinds = ("leaked_numbers", "leaked_numbers")
            elif {first, second} <= {"train", *self._made}:  # both come from the same file
                kinds = ("split_leaks", "near_split_leaks")
            else:
                kinds = ("leaks", "near_leaks") if first == "train" else ("held_out_twice", "held_out_nearly_twice")
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


def _first_among(clusters_N: np.ndarray) -> np.ndarray:
    """The first of these rows that is of the same cluster as each."""
    _, first, inverse = np.unique(clusters_N, return_index=True, return_inverse=True)
    return first[inverse]


def _twins(clusters_N: np.ndarray, others_M: np.ndarray) -> np.ndarray:
    """For each row the first of other rows that is of its cluster, or -1."""
    known, first = np.unique(others_M, return_index=True)
    at = np.minimum(np.searchsorted(known, clusters_N), len(known) - 1)
    return np.where(known[at] == clusters_N, first[at], -1)


def _unlike(first_N: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """Whether a row is of a cluster whose rows have more than one label."""
    has_two = np.zeros(len(first_N), bool)
    has_two[first_N[codes_N != codes_N[first_N]]] = True
    return has_two[first_N]


def _places(table: pa.Table, rows: np.ndarray) -> list[str]:
    shown = table.select(["file", "row"]).take(pa.array(rows[:10]))
    return [place(row) for row in shown.to_pylist()]
