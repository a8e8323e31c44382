"""Sets of character shingles and their MinHash signatures, many texts at a time.

Broder 1997, On the resemblance and containment of documents: https://doi.org/10.1109/SEQUEN.1997.666900. The share of equal
entries of two signatures estimates the Jaccard similarity of the two sets of shingles. Shingles are runs of characters, so that
Chinese and Japanese need no words. N: texts, P: entries of a signature (`NUM_HASHES`).
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.randomness import generator

NUM_HASHES = 128
_BLOCK = 1 << 16  # shingles that are hashed at once: they stay in the cache
_PART = 1 << 21  # bytes of text that are cut into shingles at once
_draws = generator(0, "minhash")  # the same for every data set and seed
_FACTORS = _draws.integers(0, 2**31, NUM_HASHES, dtype=np.uint32) * 2 + 1
_SUMMANDS = _draws.integers(0, 2**32, NUM_HASHES, dtype=np.uint32)
_BASE = np.uint32(0x9E3779B1)
_NO_CHARACTER = 0x110000  # one more than the last code point


def plain(texts: pa.Array) -> pa.Array:
    """Texts as they are compared: in lower case, one blank for each run of white space, none at the ends; null as ''."""
    lowered = pc.utf8_lower(pc.fill_null(texts, ""))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(lowered, r"\s+", " "))


def shingles(texts: pa.Array, *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A hash of each run of `size` characters, uint32, text by text; and where each text begins, int64 [N + 1].

    A text that is shorter than a shingle is a single one.
    """
    lengths = pc.utf8_length(texts).to_numpy().astype(np.int64)
    codes = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    counts = np.maximum(lengths - size + 1, 1)
    room = counts + size - 1  # a short text is filled up
    starts, padded_starts = _starts(lengths), _starts(room)
    padded = np.full(padded_starts[-1], _NO_CHARACTER, np.uint32)
    padded[np.arange(len(codes)) + np.repeat(padded_starts[:-1] - starts[:-1], lengths)] = codes
    hashes = np.zeros(len(padded) - size + 1, np.uint32)
    for place in range(size):
        hashes = hashes * _BASE + padded[place : place + len(hashes)]
    _mix(hashes)
    first = _starts(counts)
    return hashes[np.arange(first[-1]) + np.repeat(padded_starts[:-1] - first[:-1], counts)], first


def signatures(texts: pa.Array, *, size: int) -> np.ndarray:
    """The least value of each hash function over the shingles of a text, uint32 [P, N]."""
    parts = [_signatures(*shingles(texts[part], size=size)) for part in _parts(texts)]
    return np.concatenate(parts, axis=1) if parts else np.empty((NUM_HASHES, 0), np.uint32)


def similarities(texts: pa.Array, others: pa.Array, *, size: int) -> np.ndarray:
    """The Jaccard similarity of the shingles of each text and the one beside it, float64 [N]."""
    parts = [_similarities(texts[part], others[part], size) for part in _parts(texts, others)]
    return np.concatenate(parts) if parts else np.empty(0)


def bands(threshold: float) -> int:
    """How many entries of a signature make a band, so that two texts at the threshold agree in one of them 99 times in 100."""
    return max(rows for rows in range(1, 17) if rows == 1 or (1 - threshold**rows) ** (NUM_HASHES // rows) <= 0.01)


def _signatures(hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    counts = np.diff(starts)
    order = np.argsort(counts, kind="stable")
    found_PN = np.empty((NUM_HASHES, len(counts)), np.uint32)
    at = 0
    while at < len(order):
        rows = order[at : at + max(1, _BLOCK // int(counts[order[min(at + 255, len(order) - 1)]]))][:256]
        places = np.minimum(np.arange(counts[rows[-1]])[:, None], counts[rows] - 1) + starts[rows]  # the last one fills up
        block = hashes[places]
        values = np.empty_like(block)
        for number, (factor, summand) in enumerate(zip(_FACTORS, _SUMMANDS, strict=True)):
            np.multiply(block, factor, out=values)
            np.add(values, summand, out=values)
            found_PN[number, rows] = values.min(axis=0)
        at += len(rows)
    return found_PN


def _similarities(texts: pa.Array, others: pa.Array, size: int) -> np.ndarray:
    mine, theirs = (_keyed(*shingles(column, size=size)) for column in (texts, others))
    num_mine, num_theirs = (np.bincount(keys >> 32, minlength=len(texts)) for keys in (mine, theirs))
    both = np.concatenate([mine, theirs])
    both.sort()
    shared = both[1:][both[1:] == both[:-1]]
    num_shared = np.bincount(shared >> 32, minlength=len(texts))
    return num_shared / (num_mine + num_theirs - num_shared)


def _keyed(hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Number of the text and shingle in one, each once, sorted; int64."""
    keys = np.repeat(np.arange(len(starts) - 1), np.diff(starts)) << 32 | hashes.astype(np.int64)
    keys.sort()
    return keys[np.diff(keys, prepend=-1) != 0]


def _parts(*columns: pa.Array) -> list[slice]:
    """Slices of rows that hold about `_PART` bytes, or one longer row."""
    sizes = sum(pc.binary_length(column).to_numpy() for column in columns)
    starts = np.flatnonzero(np.diff(np.cumsum(sizes) // _PART, prepend=-1))
    return [slice(start, end) for start, end in zip(starts, np.append(starts, len(sizes))[1:], strict=True)]


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)])


def _mix(hashes: np.ndarray) -> None:
    """The finalizer of MurmurHash3: each bit of the input moves half of the output's."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        hashes ^= hashes >> np.uint32(shift)
        hashes *= np.uint32(factor)
