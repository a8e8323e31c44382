"""Rows set aside for validation and test, where the data has none of its own."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.config.sections.split import SplitConfig
from llmtune.data.spool import Spool
from llmtune.errors import DataError
from llmtune.randomness import generator


def split(
    tables: dict[str, pa.Table], config: SplitConfig, *, seed: int, stratify: bool, spool: Spool | None = None
) -> dict[str, pa.Table]:
    """Given splits as they are; those that are missing are taken from the train rows, the test first. Rows keep their order.

    Args:
        tables: of `sources.load`.
        config: the fractions, of the number of train rows before anything is set aside, and how the rows are chosen.
        seed: of the draw.
        stratify: whether the labels are classes, whose shares `stratified` keeps.
        spool: makes the tables; None: they are held in memory.

    Raises:
        DataError: there are too few rows.
    """
    train = tables["train"]
    fractions = {"test": config.test_fraction, "validation": config.validation_fraction}
    sizes = {name: _size(train.num_rows, share) for name, share in fractions.items() if share > 0 and name not in tables}
    if sum(sizes.values()) >= train.num_rows:
        wanted = " and ".join(f"{size} for {name}" for name, size in sizes.items())
        raise DataError(
            f"{train.num_rows} train rows are too few to set aside {wanted}",
            remedy="add rows, name files for these splits, or set split.validation_fraction and split.test_fraction to 0",
        )
    if not sizes:
        return dict(tables)
    spool = spool or Spool()
    pick = _picker(train, config.type, seed=seed, stratify=stratify)
    taken = np.zeros(train.num_rows, dtype=bool)
    made = {}
    for name, size in sizes.items():
        chosen = pick(size, taken)
        taken[chosen] = True
        mask = np.zeros(train.num_rows, dtype=bool)
        mask[chosen] = True
        made[name] = spool.filtered(train, mask)
    parts = {"train": spool.filtered(train, ~taken), **{k: v for k, v in tables.items() if k != "train"}, **made}
    return {name: parts[name] for name in ("train", "validation", "test") if name in parts}


def _size(num_rows: int, fraction: float) -> int:
    return max(1, round(num_rows * fraction))


def _picker(train: pa.Table, kind: str, *, seed: int, stratify: bool) -> Callable[[int, np.ndarray], np.ndarray]:
    """A function from a number of rows and a mask of those that are taken to the indices of the rows to take next."""
    if kind == "contiguous":
        return lambda size, taken: np.flatnonzero(~taken)[-size:]
    order = generator(seed, "split").permutation(train.num_rows)
    if kind == "random" or not stratify or "label" not in train.column_names:
        return lambda size, taken: order[~taken[order]][:size]
    labels = pc.fill_null(train["label"], "").combine_chunks().dictionary_encode()
    rank_of_label = np.argsort(np.argsort(np.array(labels.dictionary.to_pylist(), dtype=object)))
    codes = rank_of_label[labels.indices.to_numpy()]
    return lambda size, taken: _stratified(size, taken, order, codes)


def _stratified(size: int, taken: np.ndarray, order: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`size` rows in which each class has its share; every class keeps at least one row.

    Shares are rounded by largest remainder, ties by the order of the labels.
    """
    class_sizes = np.bincount(codes)
    room = np.maximum(np.bincount(codes[~taken], minlength=len(class_sizes)) - 1, 0)
    if room.sum() < size:
        raise DataError(
            f"{size} rows cannot be set aside and one of each of the {len(class_sizes)} classes be left to train on",
            remedy="add rows of the rare classes, lower the fractions, or use split=random",
        )
    exact = size * class_sizes / len(codes)
    counts = np.minimum(exact.astype(np.int64), room)
    while (missing := size - counts.sum()) > 0:
        rest = np.where(counts < room, exact - counts, -np.inf)
        best = np.argsort(-rest, kind="stable")[: min(missing, int((counts < room).sum()))]
        counts[best] += 1
    free = order[~taken[order]]
    by_class = free[np.argsort(codes[free], kind="stable")]
    starts = np.searchsorted(codes[by_class], np.arange(len(counts)))
    return np.concatenate([by_class[start : start + count] for start, count in zip(starts, counts, strict=True)])
