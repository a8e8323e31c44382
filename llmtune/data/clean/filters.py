"""Rows that are to be left out or flagged: which, why, and beside which other row."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.config.sections.clean import Duplicates, Leaks, Length, Mislabelled
from llmtune.data import duplicates as alike
from llmtune.data.accounting import Finding
from llmtune.data.clean.words import num_words
from llmtune.data.spool import Spool

_ROWS = 20_000  # at a time


def text_columns(table: pa.Table) -> list[pa.ChunkedArray]:
    return [table[name] for name in ("text", "text_pair") if name in table.column_names]


def length(table: pa.Table, config: Length) -> Iterator[Finding]:
    """Rows with a text that is too short or too long."""
    count = num_words if config.unit == "words" else _num_characters
    sizes = [_mapped(column, count) for column in text_columns(table)]
    too_short = np.any([size < (config.min or 0) for size in sizes], axis=0)
    too_long = ~too_short & np.any([size > (config.max or np.inf) for size in sizes], axis=0)
    for wrong, bound, mask in (("fewer", config.min, too_short), ("more", config.max, too_long)):
        if mask.any():
            yield Finding(f"{wrong} than {bound} {config.unit}", np.flatnonzero(mask))


def duplicates(table: pa.Table, config: Duplicates, *, spool: Spool) -> Iterator[Finding]:
    """Rows whose texts an earlier one has."""
    columns, rows_N = text_columns(table), np.arange(table.num_rows)
    if config.threshold is None:
        first_N, name = alike.exact_clusters(columns), "duplicate"
    else:
        how = {"threshold": config.threshold, "shingle_size": config.shingle_size, "spool": spool}
        first_N, name = alike.near_clusters(columns, **how), "near duplicate"
    contradicting = np.zeros(table.num_rows, bool)
    if config.contradictions != "first" and "label" in table.column_names:
        labels_N = _codes(table["label"])
        contradicting[first_N[labels_N != labels_N[first_N]]] = True
        contradicting = contradicting[first_N]
        if config.contradictions == "keep":
            _, first, inverse = np.unique(np.stack([first_N, labels_N]), axis=1, return_index=True, return_inverse=True)
            first_N, contradicting = first[inverse.ravel()], np.zeros(table.num_rows, bool)
    for reason, mask in ((name, (first_N != rows_N) & ~contradicting), (f"{name}, unlike labels", contradicting)):
        if mask.any():
            yield Finding(reason, np.flatnonzero(mask), _places(table, first_N[mask]))


def leaks(train: pa.Table, held_out: Mapping[str, pa.Table], config: Leaks, *, spool: Spool) -> Iterator[Finding]:
    """Train rows whose texts a row of another split has; each told once."""
    known_N = np.zeros(train.num_rows, bool)
    for name, table in held_out.items():
        if config.threshold is None:
            found_N, reason = alike.exact_matches(text_columns(train), text_columns(table)), f"also in {name}"
        else:
            how = {"threshold": config.threshold, "shingle_size": config.shingle_size, "spool": spool}
            found_N, reason = alike.near_matches(text_columns(train), text_columns(table), **how), f"nearly in {name}"
        rows = np.flatnonzero((found_N >= 0) & ~known_N)
        known_N[rows] = True
        if len(rows):
            yield Finding(reason, rows, _places(table, found_N[rows]))


def mislabelled(train: pa.Table, config: Mislabelled, *, seed: int) -> Iterator[Finding]:
    """Rows whose label is likely wrong, in the eyes of a quick linear model that has not seen them."""
    from llmtune.data.label_errors import label_errors  # scipy

    found = label_errors(text_columns(train), train["label"], seed=seed)
    if found is not None:
        rows = np.flatnonzero(found.is_likely_N & (found.score_N <= config.max_score))
        if len(rows):
            yield Finding("likely mislabelled", rows, [f"rather '{found.names[i]}'" for i in found.suggested_N[rows]])


def _places(table: pa.Table, rows: np.ndarray) -> list[str]:
    """`file:row` of some rows."""
    chosen = table.select(["file", "row"]).take(pa.array(rows))
    return [f"{file}:{row}" for file, row in zip(chosen["file"].to_pylist(), chosen["row"].to_pylist(), strict=True)]


def _num_characters(texts: pa.Array) -> np.ndarray:
    return pc.utf8_length(pc.fill_null(texts, "")).to_numpy()


def _mapped(column: pa.ChunkedArray, count: Callable[[pa.Array], np.ndarray]) -> np.ndarray:
    parts = [count(c.slice(start, _ROWS)) for c in column.chunks for start in range(0, len(c), _ROWS)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _codes(labels: pa.ChunkedArray) -> np.ndarray:
    """A number for each label; int64 [N]."""
    return pc.index_in(labels, value_set=labels.unique()).to_numpy().astype(np.int64)
