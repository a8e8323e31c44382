"""Rows that stand in two tables."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from llmtune.data.spool import batches_of

_ROWS, _BYTES = 10_000, 8 << 20  # that are looked at at once


def in_common(held_out: pa.Table, train: pa.Table) -> int:
    """How many rows have texts, not all of them blank, that a train row has, too.

    Texts are told apart by 64 bits of a hash: 8 bytes of memory for each row that is held out, however long its text is.
    """
    known, counts = np.unique(np.concatenate([np.empty(0, np.int64), *_hashes(held_out)]), return_counts=True)
    if not len(known):
        return 0
    is_leaked = np.zeros(len(known), dtype=bool)
    for hashes in _hashes(train):
        places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        is_leaked[places[known[places] == hashes]] = True
    return int(counts[is_leaked].sum())


def _hashes(table: pa.Table) -> Iterator[np.ndarray]:
    """A number for each row whose texts are not all blank, the same for the same texts in this process, int64."""
    names = [name for name in ("text", "text_pair") if name in table.column_names]
    for batch in batches_of(table.select(names), rows=_ROWS, size=_BYTES):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        yield np.array([hash(row) for row in rows if any(text and not text.isspace() for text in row)], dtype=np.int64)
