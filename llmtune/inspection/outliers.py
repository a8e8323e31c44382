"""Rows that are unlike all others: those whose mean cosine similarity to the rest is far below what is usual. N: rows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from llmtune.data.ngrams import WeightedNgrams
from llmtune.inspection.findings import NUM_EXAMPLES, Finding, examples

_BITS = 18
_FAR = 6.0  # robust standard deviations below the median
_FEWEST = 50  # rows from which on it is told


def similarities(columns: Sequence[pa.ChunkedArray]) -> np.ndarray:
    """The mean cosine of each row with all others, by its n-grams weighted by rarity; float64 [N].

    The mean over all pairs takes one pass, since it is the product with the sum of all rows, without the row itself.
    """
    rows = WeightedNgrams(columns, bits=_BITS)
    num_rows = len(columns[0])
    total = np.zeros(1 << _BITS)
    for _, weights in rows:
        total += np.bincount(weights.indices, weights.data, 1 << _BITS)
    found = np.zeros(num_rows)
    for start, weights in rows:
        own = np.asarray(weights.multiply(weights).sum(axis=1)).ravel()
        found[start : start + weights.shape[0]] = (weights @ total - own) / max(num_rows - 1, 1)
    return found


def outliers(split: str, table: pa.Table, columns: Sequence[pa.ChunkedArray]) -> list[Finding]:
    """The rows that share next to nothing with the others; blank ones are not among them."""
    if table.num_rows < _FEWEST:
        return []
    found_N = similarities(columns)
    has_text = found_N > 0
    logs_N = np.log(np.maximum(found_N, 1e-12))
    middle = float(np.median(logs_N))
    deviation = 1.4826 * float(np.median(np.abs(logs_N - middle)))
    if not deviation:
        return []
    distances_N = (middle - logs_N) / deviation
    rows = np.flatnonzero((distances_N > _FAR) & has_text)
    if not len(rows):
        return []
    rows = rows[np.argsort(-distances_N[rows], kind="stable")]
    notes = [f"mean similarity {found_N[row]:.1g}, usual {np.exp(middle):.1g}" for row in rows[:NUM_EXAMPLES]]
    return [Finding("outliers", split, len(rows), table.num_rows, examples(table, rows, notes))]
