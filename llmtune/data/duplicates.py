"""Rows that say the same, exactly or nearly. A row is one text or several columns of it; blank rows are alike to none.

Near: the Jaccard similarity of the character shingles, in plain spelling (`minhash.plain`), is at least a threshold. Candidates
are found by locality-sensitive hashing of MinHash signatures (Leskovec, Rajaraman and Ullman 2014, Mining of Massive Datasets,
3.4) and compared in full, so that there are no false ones; of pairs at the threshold about one in a hundred is missed. Of a
large group of candidates a row is compared with the first and with the one before it. N, M: rows.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data import minhash
from llmtune.data.spool import Spool, batches_of

Columns = Sequence[pa.ChunkedArray]
_ROWS, _BYTES = 20_000, 8 << 20  # that are looked at at once
_PAIRS = 1_000  # texts that are compared at a time
_MARGIN = 0.12  # the estimate of a similarity is off by more once in a thousand times
_CANDIDATES = 4  # rows of a group that a row of another table is compared with


def exact_clusters(columns: Columns) -> np.ndarray:
    """For each row the first row with the same texts, which may be itself; int64 [N]."""
    texts = _joined(columns)
    return _confirmed(texts, _first_of(_hashes(texts, _as_is)))


def near_clusters(columns: Columns, *, threshold: float, shingle_size: int, spool: Spool | None = None) -> np.ndarray:
    """For each row the first row of its cluster; int64 [N]. Rows are of one cluster if a chain of near pairs joins them.

    Args:
        columns: of strings, with null for ''.
        threshold: the least Jaccard similarity of a near pair.
        shingle_size: characters.
        spool: holds what grows with the rows; None: it is in memory.
    """
    texts = _joined(columns)
    rows_N, is_blank = np.arange(len(texts)), _is_blank(texts)
    first_N = np.where(is_blank, rows_N, _first_of(_hashes(texts, minhash.plain)))
    distinct = np.flatnonzero((first_N == rows_N) & ~is_blank)
    signed = _signed(texts, distinct, shingle_size, spool)
    labels, tested = np.arange(len(distinct)), np.empty(0, np.int64)
    for keys in _bands(signed, threshold):
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]) != 0) if len(order) else order
        group_first = np.repeat(order[starts], np.diff(starts, append=len(order)))
        before = np.concatenate([order[:1], order[:-1]])
        before[starts] = order[starts]
        pairs = np.concatenate([np.stack([group_first, order]), np.stack([before, order])], axis=1)
        pairs, tested = _untested(pairs[:, labels[pairs[0]] != labels[pairs[1]]], tested, len(distinct))
        pairs = _likely(signed, signed, pairs, threshold)
        labels = _components(labels, *_near(texts, distinct, texts, distinct, pairs, threshold, shingle_size))
    return _components(first_N, distinct[labels], distinct)


def exact_matches(columns: Columns, others: Columns) -> np.ndarray:
    """For each row the first row of another table with the same texts, or -1; int64 [N]."""
    texts, other_texts = _joined(columns), _joined(others)
    found_N = _lookup(_hashes(texts, _as_is), _hashes(other_texts, _as_is))
    found_N[_is_blank(texts)] = -1
    for rows in _slices(np.flatnonzero(found_N >= 0), _ROWS):
        same = pc.equal(_taken(texts, rows), _taken(other_texts, found_N[rows])).to_numpy(zero_copy_only=False)
        found_N[rows[~same]] = -1
    return found_N


def near_matches(
    columns: Columns, others: Columns, *, threshold: float, shingle_size: int, spool: Spool | None = None
) -> np.ndarray:
    """For each row a row of another table that is a near pair with it, or -1; int64 [N]. See `near_clusters`."""
    texts, other_texts = _joined(columns), _joined(others)
    hashes_M = _hashes(other_texts, minhash.plain)
    found_N = _lookup(_hashes(texts, minhash.plain), hashes_M)
    found_N[_is_blank(texts)] = -1
    open_rows = np.flatnonzero((found_N < 0) & ~_is_blank(texts))
    distinct = np.flatnonzero((_first_of(hashes_M) == np.arange(len(hashes_M))) & ~_is_blank(other_texts))
    signed, other_signed = (_signed(t, rows, shingle_size, spool) for t, rows in ((texts, open_rows), (other_texts, distinct)))
    is_open, tested = np.ones(len(open_rows), bool), np.empty(0, np.int64)
    for keys, other_keys in zip(_bands(signed, threshold), _bands(other_signed, threshold), strict=True):
        order = np.argsort(other_keys, kind="stable")
        starts, ends = (np.searchsorted(other_keys[order], keys, side=side) for side in ("left", "right"))
        ends = np.where(is_open, np.minimum(ends, starts + _CANDIDATES), starts)
        rows = np.repeat(np.arange(len(keys)), ends - starts)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(ends - starts) - ends, ends - starts)
        pairs, tested = _untested(np.stack([rows, order[places]]), tested, len(distinct))
        pairs = _likely(signed, other_signed, pairs, threshold)
        mine, theirs = _near(texts, open_rows, other_texts, distinct, pairs, threshold, shingle_size)[:, ::-1]
        found_N[open_rows[mine]] = distinct[theirs]  # of sorted pairs the first one is written last
        is_open[mine] = False
    return found_N


def _joined(columns: Columns) -> pa.ChunkedArray:
    """One text for each row; those of a pair with a character between them that no text holds."""
    filled = [pc.fill_null(column, "") for column in columns]
    return filled[0] if len(filled) == 1 else pc.binary_join_element_wise(*filled, "\x1f")


def _as_is(texts: pa.Array) -> pa.Array:
    return texts


def _hashes(texts: pa.ChunkedArray, spelled: Callable[[pa.Array], pa.Array]) -> np.ndarray:
    """A 64-bit hash of each text in some spelling, int64 [N]."""
    parts = [np.fromiter(map(hash, spelled(chunk).to_pylist()), np.int64, len(chunk)) for chunk in _chunks(texts)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _chunks(texts: pa.ChunkedArray) -> Iterator[pa.Array]:
    for batch in batches_of(pa.table({"text": texts}), rows=_ROWS, size=_BYTES):
        yield batch.column(0)


def _is_blank(texts: pa.ChunkedArray) -> np.ndarray:
    parts = [pc.match_substring_regex(chunk, r"[^\s\x1f]").to_numpy(zero_copy_only=False) for chunk in _chunks(texts)]
    return ~np.concatenate(parts) if parts else np.empty(0, bool)


def _first_of(hashes_N: np.ndarray) -> np.ndarray:
    """The first place at which the same hash stands."""
    _, first, inverse = np.unique(hashes_N, return_index=True, return_inverse=True)
    return first[inverse]


def _lookup(hashes_N: np.ndarray, hashes_M: np.ndarray) -> np.ndarray:
    """The first place of each hash among others, or -1."""
    if not len(hashes_M):
        return np.full(len(hashes_N), -1)
    known, first = np.unique(hashes_M, return_index=True)
    at = np.minimum(np.searchsorted(known, hashes_N), len(known) - 1)
    return np.where(known[at] == hashes_N, first[at], -1)


def _confirmed(texts: pa.ChunkedArray, first_N: np.ndarray) -> np.ndarray:
    """Without those that share a hash alone, and blank ones."""
    first_N = np.where(_is_blank(texts), np.arange(len(first_N)), first_N)
    for rows in _slices(np.flatnonzero(first_N != np.arange(len(first_N))), _ROWS):
        same = pc.equal(_taken(texts, rows), _taken(texts, first_N[rows])).to_numpy(zero_copy_only=False)
        first_N[rows[~same]] = rows[~same]
    return first_N


def _taken(texts: pa.ChunkedArray, rows: np.ndarray) -> pa.Array:
    return pa.concat_arrays(texts.take(pa.array(rows)).chunks or [pa.array([], pa.string())])


def _slices(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[..., start : start + size] for start in range(0, rows.shape[-1], size))


def _signed(texts: pa.ChunkedArray, rows: np.ndarray, shingle_size: int, spool: Spool | None) -> np.ndarray:
    """Signatures of some rows, uint32 [rows, P]."""
    signed = (spool or Spool()).array((len(rows), minhash.NUM_HASHES), np.dtype(np.uint32))
    done = 0
    for part in _slices(rows, _ROWS):
        signed[done : done + len(part)] = minhash.signatures(minhash.plain(_taken(texts, part)), size=shingle_size).T
        done += len(part)
    return signed


def _bands(signed_NP: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """A hash of each band of the signatures, int64 [N]."""
    size = minhash.bands(threshold)
    for start in range(0, minhash.NUM_HASHES - size + 1, size):
        keys = np.zeros(len(signed_NP), np.uint64)
        for column in signed_NP[:, start : start + size].T:
            keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
        yield keys.view(np.int64)


def _untested(pairs: np.ndarray, tested: np.ndarray, num_others: int) -> tuple[np.ndarray, np.ndarray]:
    """Those pairs that were not tested before, each once and sorted, and all that are then; a tested pair is one number."""
    codes = np.setdiff1d(pairs[0] * num_others + pairs[1], tested)
    return np.stack([codes // max(num_others, 1), codes % max(num_others, 1)]), np.union1d(tested, codes)


def _likely(signed_NP: np.ndarray, others_MP: np.ndarray, pairs: np.ndarray, threshold: float) -> np.ndarray:
    """Those pairs whose signatures speak for it."""
    kept = [pairs[:, :0]]
    for mine, theirs in _slices(pairs, _ROWS):
        estimates = (signed_NP[mine] == others_MP[theirs]).mean(1)
        kept.append(np.stack([mine, theirs])[:, estimates >= threshold - _MARGIN])
    return np.concatenate(kept, axis=1)


def _near(
    texts: pa.ChunkedArray,
    rows: np.ndarray,
    others: pa.ChunkedArray,
    other_rows: np.ndarray,
    pairs: np.ndarray,
    threshold: float,
    shingle_size: int,
) -> np.ndarray:
    """Those pairs, places in `rows` and `other_rows`, that are near indeed, in their order."""
    kept = [pairs[:, :0]]
    for part in _slices(pairs, _PAIRS):
        mine, theirs = minhash.plain(_taken(texts, rows[part[0]])), minhash.plain(_taken(others, other_rows[part[1]]))
        kept.append(part[:, minhash.similarities(mine, theirs, size=shingle_size) >= threshold])
    return np.concatenate(kept, axis=1)


def _components(labels_N: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The least row that each row is joined to by pairs.

    Args:
        labels_N: a smaller or the same row of the same component, for each row.
        first, second: the pairs.
    """
    labels_N = labels_N.copy()
    while True:
        mine, theirs = labels_N[first], labels_N[second]
        if (mine == theirs).all():
            return labels_N
        low = np.minimum(mine, theirs)
        np.minimum.at(labels_N, mine, low)
        np.minimum.at(labels_N, theirs, low)
        while (labels_N != (jumped := labels_N[labels_N])).any():
            labels_N = jumped
