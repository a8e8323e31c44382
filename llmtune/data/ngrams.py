"""Texts as sparse counts of hashed n-grams, of words and of characters: what quick linear models and distances read."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse among the 64-bit numbers
_INVERSE = pow(_BASE, -1, 1 << 64)
_BLANK = 32
_WORDS, _CHARS = (1, 2), (4,)
_MAX_CHARS = 1_000  # of a text that are read
_BATCH = 10_000  # rows at a time
_MOST_HELD = 256 << 20  # bytes of n-grams that are kept for another look; more are counted again
_SAMPLE = 20_000  # rows from which rarity is estimated
_PART = 1 << 18  # characters that are hashed at once: what is made of them stays in the cache
# Scripts without spaces between words, of which each character counts as a word: Thai to Khmer, kana, ideographs.
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x9FFF), (0x20000, 0x3FFFF))


def hashed_ngrams(
    texts: pa.Array, *, bits: int, words: tuple[int, ...] = (1, 2), chars: tuple[int, ...] = (), max_chars: int
) -> sparse.csr_matrix:
    """Counts of n-grams, float32 [N, 2 ** bits]; N-grams with the same hash share a column (Weinberger et al. 2009).

    Case is folded. A word is a run of letters and digits, or one character of a script without spaces.

    Args:
        texts: N strings, nulls are empty texts.
        bits: of a hash.
        words: how many words in a row make an n-gram.
        chars: how many characters in a row make one; all that is no letter or digit is a blank.
        max_chars: of each text that are read.
    """
    cut = pc.utf8_slice_codeunits(pc.utf8_lower(pc.fill_null(texts, "")), 0, max_chars)
    sizes = pc.utf8_length(cut).to_numpy()
    parts = np.cumsum(sizes) // _PART
    starts = np.flatnonzero(np.diff(parts, prepend=-1)).tolist()
    found = [
        _counted(cut.slice(start, end - start), sizes[start:end], bits, words, chars)
        for start, end in pairwise([*starts, len(cut)])
    ]
    return sparse.vstack(found, format="csr") if found else sparse.csr_matrix((0, 1 << bits), dtype=np.float32)


def _counted(
    texts: pa.Array, sizes: np.ndarray, bits: int, words: tuple[int, ...], chars: tuple[int, ...]
) -> sparse.csr_matrix:
    codes = code_points(texts)
    row_of = np.repeat(np.arange(len(texts), dtype=np.int32), sizes)
    kinds = _kinds(codes)
    grams = [*_word_grams(codes, row_of, kinds, words), *_char_grams(np.where(kinds > 0, codes, _BLANK), row_of, chars)]
    shape, shift = (len(texts), 1 << bits), np.uint64(64 - bits)
    columns = np.concatenate([(_mixed(hashes) >> shift).astype(np.int32) for hashes, _ in grams])
    rows = np.concatenate([rows for _, rows in grams])
    counts = sparse.coo_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape).tocsr()
    counts.sum_duplicates()
    return counts


class WeightedNgrams:
    """The rows of text columns as n-grams weighted by rarity, each row scaled to length one; batch by batch.

    N-grams are single words, pairs of words, and runs of four characters. Iteration gives the first row of each batch and its
    weights, float32 [rows, 2 ** bits]. As long as they are few they are counted only once.

    Args:
        columns: of strings, N rows each.
        bits: of the hash of an n-gram.
    """

    def __init__(self, columns: Sequence[pa.ChunkedArray], bits: int):
        self._columns, self._bits = columns, bits
        self._held: list[tuple[int, sparse.csr_matrix]] | None = None
        sample = self._counts([column.take(pa.array(spread(len(column)))) for column in columns])
        frequency = np.bincount(sample.indices, minlength=1 << bits)
        self._rarity = np.log((1 + sample.shape[0]) / (1 + frequency)).astype(np.float32)

    def __iter__(self) -> Iterator[tuple[int, sparse.csr_matrix]]:
        if self._held is not None:
            yield from self._held
            return
        held, size = [], 0
        for start in range(0, len(self._columns[0]), _BATCH):
            weights = self._weighted(self._counts([column.slice(start, _BATCH) for column in self._columns]))
            size += weights.data.nbytes + weights.indices.nbytes
            held = [*held, (start, weights)] if size <= _MOST_HELD else []
            yield start, weights
        self._held = held if size <= _MOST_HELD else None

    def of(self, rows: np.ndarray) -> sparse.csr_matrix:
        """The weighted n-grams of some rows."""
        return self._weighted(self._counts([column.take(pa.array(rows)) for column in self._columns]))

    def _counts(self, columns: Sequence[pa.ChunkedArray]) -> sparse.csr_matrix:
        parts = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
        found = [hashed_ngrams(part, bits=self._bits, words=_WORDS, chars=_CHARS, max_chars=_MAX_CHARS) for part in parts]
        return found[0] if len(found) == 1 else (found[0] + found[1]).tocsr()

    def _weighted(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Presence times rarity, each row scaled to length one."""
        weights = self._rarity[counts.indices]
        row_of = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        lengths = np.sqrt(np.bincount(row_of, weights.astype(np.float64) ** 2, counts.shape[0]))
        weights /= np.maximum(lengths, 1e-9).astype(np.float32)[row_of]
        return sparse.csr_matrix((weights, counts.indices, counts.indptr), shape=counts.shape)


def spread(num_rows: int) -> np.ndarray:
    """At most `_SAMPLE` of the rows, from the first to the last."""
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, _SAMPLE)).astype(np.int64))


def code_points(texts: pa.Array) -> np.ndarray:
    """The characters of all texts, one text after the other, as uint32. No text is null."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = texts.buffers()[2]
    held = data[int(offsets[0]) : int(offsets[-1])].to_pybytes() if data is not None else b""
    return np.frombuffer(held.decode().encode("utf-32-le"), np.uint32)


def table_of(codes: np.ndarray, value_of, dtype: type) -> np.ndarray:
    """A table from code point to `value_of(character)` that is filled for the characters among `codes`."""
    is_there = np.zeros(0x110000, dtype=bool)
    is_there[codes] = True
    table = np.zeros(0x110000, dtype=dtype)
    for code in np.flatnonzero(is_there).tolist():
        table[code] = value_of(chr(code))
    return table


def _kinds(codes: np.ndarray) -> np.ndarray:
    """Of each character: 0 no part of a word, 1 a letter or digit, 2 a word by itself."""

    def kind(char: str) -> int:
        if any(low <= ord(char) <= high for low, high in _UNSPACED):
            return 2
        return int(char.isalnum())

    return table_of(codes, kind, np.uint8)[codes]


def _word_grams(codes: np.ndarray, row_of: np.ndarray, kinds: np.ndarray, orders: tuple[int, ...]):
    """Hash and row of each n-gram of words. A word's hash is a polynomial of its characters, taken from running sums."""
    is_word = kinds > 0
    breaks = np.ones(len(codes) + 1, dtype=bool)  # whether a word may not go on from the character before
    breaks[1:-1] = (row_of[1:] != row_of[:-1]) | (kinds[1:] != 1) | (kinds[:-1] != 1)
    starts, ends = np.flatnonzero(is_word & breaks[:-1]), np.flatnonzero(is_word & breaks[1:]) + 1
    powers = _powers(_BASE, len(codes))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mixed(codes.astype(np.uint64)) * powers, dtype=np.uint64)])
    hashes, rows = (sums[ends] - sums[starts]) * _powers(_INVERSE, len(codes))[starts], row_of[starts]
    for order in orders:
        gram = np.zeros(max(len(hashes) - order + 1, 0), dtype=np.uint64)
        for place in range(order):
            gram = gram * np.uint64(_BASE) + _mixed(hashes[place : place + len(gram)])
        inside = rows[: len(gram)] == rows[order - 1 :][: len(gram)]
        yield gram[inside], rows[: len(gram)][inside]


def _char_grams(codes: np.ndarray, row_of: np.ndarray, orders: tuple[int, ...]):
    mixed = _mixed(codes.astype(np.uint64))
    for order in orders:
        gram = np.full(max(len(codes) - order + 1, 0), order, dtype=np.uint64)
        for place in range(order):
            gram = gram * np.uint64(_BASE) + mixed[place : place + len(gram)]
        inside = row_of[: len(gram)] == row_of[order - 1 :][: len(gram)]
        yield gram[inside], row_of[: len(gram)][inside]


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele et al. 2014): each bit comes to depend on all."""
    mixed = hashes ^ (hashes >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
