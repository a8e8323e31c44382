"""Single rows drawn at random, with or without regard to their classes, or taken from the end. N: train rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.config.sections.split import SplitConfig
from llmtune.errors import DataError
from llmtune.randomness import generator

_PIECE = 1 << 18  # rows that are sorted at once

Sides = dict[str, np.ndarray]  # indices, or a mask, of the rows of each side but the train rows


@dataclass(frozen=True)
class Rows:
    """What is to be divided.

    Attributes:
        table: the train rows.
        seed: of the draw.
        has_classes: whether their labels are classes.
    """

    table: pa.Table
    seed: int
    has_classes: bool

    @cached_property
    def order(self) -> np.ndarray:
        """All rows shuffled, int32 [N]."""
        return generator(self.seed, "split").permutation(np.arange(self.table.num_rows, dtype=np.int32))

    @cached_property
    def classes(self) -> tuple[np.ndarray, list[str]] | None:
        """The class of each row, int32 [N], and the sorted names, '' for rows without a label; None: there are no classes.

        A row with several labels counts as one of its rarest, so that the rare ones come to stand on every side.
        """
        if self.has_classes and "labels" in self.table.column_names:
            return _rarest_labels(self.table["labels"])
        if not self.has_classes or "label" not in self.table.column_names:
            return None
        codes, dictionary = numbered(self.table["label"])
        names = dictionary.to_pylist()
        if (is_missing := codes < 0).any():
            names += [] if "" in names else [""]
            codes[is_missing] = names.index("")
        return np.argsort(np.argsort(np.array(names, dtype=object))).astype(np.int32)[codes], sorted(names)


def numbered(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """The place of each text among the distinct ones, int32 [N], -1 for none; and these in the order of their first rows."""
    encoded = column.dictionary_encode()
    codes = np.empty(len(column), dtype=np.int32)
    start = 0
    for chunk in encoded.chunks:
        codes[start : start + len(chunk)] = chunk.indices.fill_null(-1).to_numpy()
        start += len(chunk)
    return codes, encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], column.type)


def _rarest_labels(lists: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """As `Rows.classes`, of lists of labels; of labels that are equally rare, the first by name."""
    codes_M, dictionary = numbered(pc.list_flatten(lists))
    names = sorted({"", *dictionary.to_pylist()})
    place = {name: i for i, name in enumerate(names)}
    codes_M = np.array([place[name] for name in dictionary.to_pylist()], dtype=np.int32)[codes_M]
    sizes = np.bincount(codes_M, minlength=len(names))
    by_rarity = np.lexsort((np.arange(len(names)), sizes)).astype(np.int32)
    rank_M = np.argsort(by_rarity).astype(np.int32)[codes_M]
    rank_N = np.full(len(lists), len(names), dtype=np.int32)
    np.minimum.at(rank_N, pc.list_parent_indices(lists).to_numpy(), rank_M)
    return np.append(by_rarity, np.int32(place[""]))[rank_N], names


def contiguous(rows: Rows, config: SplitConfig, wanted: dict[str, int]) -> Sides:
    """The last rows, those of the test behind those of validation."""
    return _consecutive(np.arange(rows.table.num_rows - 1, -1, -1, dtype=np.int32), wanted)


def random(rows: Rows, config: SplitConfig, wanted: dict[str, int]) -> Sides:
    return _consecutive(rows.order, wanted)


def stratified(rows: Rows, config: SplitConfig, wanted: dict[str, int]) -> Sides:
    """Each class in its proportion; every class keeps at least one train row.

    Raises:
        DataError: there are too few rows of some class.
    """
    if rows.classes is None:
        return random(rows, config, wanted)
    codes = rows.classes[0]
    is_taken, sides = np.zeros(len(codes), dtype=bool), {}
    for name, size in wanted.items():
        sides[name] = _in_proportion(size, is_taken, rows.order, codes)
        is_taken[sides[name]] = True
    return sides


def _consecutive(order_N: np.ndarray, wanted: dict[str, int]) -> Sides:
    ends = np.cumsum([0, *wanted.values()])
    return {name: order_N[start:end] for name, start, end in zip(wanted, ends, ends[1:], strict=False)}


def _in_proportion(size: int, is_taken: np.ndarray, order_N: np.ndarray, codes_N: np.ndarray) -> np.ndarray:
    """`size` rows in which each class has its share.

    Shares are rounded by largest remainder, ties by the order of the labels.
    """
    class_sizes = np.bincount(codes_N)
    room = np.maximum(np.bincount(codes_N[~is_taken], minlength=len(class_sizes)) - 1, 0)
    if room.sum() < size:
        raise DataError(
            f"{size} rows cannot be set aside and one of each of the {len(class_sizes)} classes be left to train on",
            remedy="add rows of the rare classes, lower the fractions, or use split=random",
        )
    exact = size * class_sizes / len(codes_N)
    counts = np.minimum(exact.astype(np.int64), room)
    while (missing := size - counts.sum()) > 0:
        rest = np.where(counts < room, exact - counts, -np.inf)
        best = np.argsort(-rest, kind="stable")[: min(missing, int((counts < room).sum()))]
        counts[best] += 1
    return np.concatenate([*_first_of_each(counts, is_taken, order_N, codes_N)])


def _first_of_each(counts: np.ndarray, is_taken: np.ndarray, order_N: np.ndarray, codes_N: np.ndarray) -> Iterator[np.ndarray]:
    """The first rows in an order that are not taken, so many of each class; a piece of the order at a time, to save memory."""
    left = counts.copy()
    for start in range(0, len(order_N), _PIECE):
        piece = order_N[start : start + _PIECE]
        piece = piece[~is_taken[piece]]
        by_class = piece[np.argsort(codes_N[piece], kind="stable")]
        codes = codes_N[by_class]
        rank = np.arange(len(codes)) - np.searchsorted(codes, codes)  # within its class
        chosen = rank < left[codes]
        yield by_class[chosen]
        left -= np.bincount(codes[chosen], minlength=len(left))
        if not left.any():
            return
