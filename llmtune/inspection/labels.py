"""What the labels of the splits are like: classes and their sizes, or numbers to predict. N: rows, C: classes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data.label_errors import LabelErrors
from llmtune.inspection.findings import NUM_EXAMPLES, Finding, examples

_IMBALANCED = 3.0  # rows of the largest class for one of the smallest, from which on it is told
_FEWEST_ROWS = 10  # of a class
_FAR = 8.0  # robust standard deviations of a target
MOST_SUSPICIOUS = 30  # rows that are shown

Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Suspicious:
    """A row whose label is likely wrong; `score` of `LabelErrors`."""

    place: str
    text: str
    given: str
    suggested: str
    score: float


def class_sizes(tables: Tables) -> dict[str, dict[str, int]]:
    """Rows of each class for each split, classes sorted by their train rows; those without a label are left out."""
    counts = {}
    for split, table in tables.items():
        found = table["label"].drop_null().value_counts()
        counts[split] = dict(zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True))
    names = sorted({name for found in counts.values() for name in found}, key=lambda n: (-counts["train"].get(n, 0), n))
    return {split: {name: found.get(name, 0) for name in names} for split, found in counts.items()}


def missing(tables: Tables) -> Iterator[Finding]:
    """Rows without a label."""
    for split, table in tables.items():
        is_missing = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(table["label"]), ""), True)
        rows = np.flatnonzero(is_missing.to_numpy())
        if len(rows):
            yield Finding("no_label", split, len(rows), table.num_rows, examples(table, rows))


def of_classes(tables: Tables, sizes: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """What is wrong with the classes."""
    train = {name: size for name, size in sizes["train"].items() if size}
    num_rows = tables["train"].num_rows
    if twins := _alike(sizes):
        rows = [name for names in twins.values() for name in names]
        label_map = _as_override({name: plain for plain, names in twins.items() for name in names})
        kind = "alike_labels" if label_map else "alike_labels_by_hand"
        count = sum(sizes["train"].get(name, 0) for name in rows)
        shown = _of_class(tables["train"], rows)
        yield Finding(kind, "train", count, num_rows, examples(tables["train"], *shown), {"label_map": label_map})
    for split, found in sizes.items():
        unseen = [name for name, size in found.items() if size and name not in train]
        if unseen:
            count = sum(found[name] for name in unseen)
            shown = _of_class(tables[split], unseen)
            yield Finding("unseen_labels", split, count, tables[split].num_rows, examples(tables[split], *shown))
    if len(train) > 1 and (ratio := max(train.values()) / min(train.values())) >= _IMBALANCED:
        smallest = min(train, key=train.__getitem__)
        shown = _of_class(tables["train"], [smallest])
        facts = {"ratio": f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"}
        yield Finding("imbalance", "train", train[smallest], num_rows, examples(tables["train"], *shown), facts)
    rare = [name for name, size in train.items() if size < _FEWEST_ROWS]
    if rare and num_rows >= 2 * _FEWEST_ROWS:
        shown = _of_class(tables["train"], rare)
        count = sum(train[name] for name in rare)
        yield Finding("rare_labels", "train", count, num_rows, examples(tables["train"], *shown), {"least": _FEWEST_ROWS})


def of_numbers(split: str, table: pa.Table, targets_N: np.ndarray) -> Iterator[Finding]:
    """What is wrong with the numbers to predict; NaN where there is none."""
    known = targets_N[np.isfinite(targets_N)]
    if not len(known):
        return
    if split == "train" and (known == known[0]).all():
        yield Finding("constant_target", split, len(known), table.num_rows)
        return
    middle = np.median(known)
    deviation = 1.4826 * np.median(np.abs(known - middle)) or known.std()
    distances = np.nan_to_num(np.abs(targets_N - middle) / deviation)
    rows = np.flatnonzero(distances > _FAR)
    if len(rows):
        rows = rows[np.argsort(-distances[rows], kind="stable")]
        notes = [f"target {targets_N[row]:.6g}, median {middle:.6g}" for row in rows[:NUM_EXAMPLES]]
        yield Finding("far_targets", split, len(rows), table.num_rows, examples(table, rows, notes))


def numbers(table: pa.Table) -> np.ndarray:
    """The labels as float64 [N], NaN where they are none."""
    values = np.full(table.num_rows, np.nan)
    for row, text in enumerate(table["label"].to_pylist()):
        try:
            values[row] = float(text)
        except (TypeError, ValueError):
            continue
    return values


def suspicious(train: pa.Table, found: LabelErrors) -> tuple[list[Finding], list[Suspicious]]:
    """The rows whose label is likely wrong, the surest first."""
    rows = np.flatnonzero(found.is_likely_N)
    if not len(rows):
        return [], []
    rows = rows[np.argsort(found.score_N[rows], kind="stable")]
    first = rows[:MOST_SUSPICIOUS]
    told = [(found.names[found.given_N[row]], found.names[found.suggested_N[row]], float(found.score_N[row])) for row in first]
    shown = examples(train, first, [f"{given}, rather {suggested}" for given, suggested, _ in told])
    kind = "mislabelled_numbers" if "features" in train.column_names else "mislabelled"
    finding = Finding(kind, "train", len(rows), train.num_rows, shown)
    wide = [e for start in range(0, len(first), NUM_EXAMPLES) for e in examples(train, first[start : start + NUM_EXAMPLES])]
    return [finding], [Suspicious(e.place, e.text, *row) for e, row in zip(wide, told, strict=True)]


def _alike(sizes: Mapping[str, Mapping[str, int]]) -> dict[str, list[str]]:
    """The most frequent spelling of each class that has several, and the other ones."""
    totals: dict[str, int] = {}
    for found in sizes.values():
        for name, size in found.items():
            totals[name] = totals.get(name, 0) + size
    spellings: dict[str, list[str]] = {}
    for name in totals:
        spellings.setdefault(" ".join(name.split()).casefold(), []).append(name)
    twins = {}
    for names in spellings.values():
        if len(names) > 1:
            plain, *others = sorted(names, key=lambda name: (-totals[name], name))
            twins[plain] = others
    return twins


def _as_override(names: Mapping[str, str]) -> str | None:
    """A mapping in Hydra's grammar, whose keys are words of ASCII; None: it cannot be written so."""
    if not all(re.fullmatch(r"[\w .+/-]+", name, re.ASCII) and name == name.strip() for pair in names.items() for name in pair):
        return None
    return "{" + ", ".join(f"{old.replace(' ', chr(92) + ' ')}: '{new}'" for old, new in names.items()) + "}"


def _of_class(table: pa.Table, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The first rows of some classes, and the class of each as a note."""
    is_one = pc.fill_null(pc.is_in(table["label"], value_set=pa.array(names, pa.string())), False)
    rows = np.flatnonzero(is_one.to_numpy())[:NUM_EXAMPLES]
    return rows, table["label"].take(pa.array(rows, pa.int64())).to_pylist()
