"""Whole groups of rows. G: groups, C: classes, S: sides, such as train, validation and test, or the folds."""

from collections.abc import Sequence

import numpy as np

from llmtune import console
from llmtune.config.sections.split import SplitConfig
from llmtune.data.sources import place
from llmtune.data.split.rows import Rows, Sides, numbered
from llmtune.errors import DataError
from llmtune.randomness import generator

_MOST_CELLS = 20_000_000  # of [G, C]: beyond it the classes are not balanced
_ONE_BY_ONE = 5_000  # groups: beyond it those that are alike are dealt out together


def grouped(rows: Rows, config: SplitConfig, wanted: dict[str, int]) -> Sides:
    """Sizes as near to those wanted as whole groups allow, classes in proportion as far as possible.

    Raises:
        DataError: a row is of no group, or there are too few groups.
    """
    left = rows.table.num_rows - sum(wanted.values())
    sides = divided(rows, [*wanted.values(), left], names=[*wanted, "training"])
    return {name: sides == number for number, name in enumerate(wanted)}


def divided(rows: Rows, wanted: Sequence[int], *, names: Sequence[str]) -> np.ndarray:
    """The side of each row, int16 [N], no group on two of them.

    Args:
        rows: with a column `group`.
        wanted: rows of each side.
        names: of the sides, for messages.

    Raises:
        DataError: a row is of no group, or there are fewer groups than sides.
    """
    groups, known = numbered(rows.table["group"])
    blank = next((i for i, name in enumerate(known.to_pylist()) if not name.strip()), -1)
    if len(at := np.flatnonzero((groups == blank) | (groups < 0))):
        remedy = "name the group of every row, or leave the row out with data.where"
        raise DataError("the group is empty", where=place(rows.table, int(at[0])), remedy=remedy)
    if len(known) < len(wanted):
        told = f"all {len(groups):,} rows are of one group" if len(known) == 1 else f"there are only {len(known)} groups"
        raise DataError(
            f"{told}, and {' and '.join(names)} need one each",
            where="split.group_column",
            remedy="choose another column, set a fraction to 0 or fewer folds, or use split=random",
        )
    counts_GC = _counted(groups, len(known), rows)
    targets_SC = np.outer(np.array(wanted) / len(groups), counts_GC.sum(0))
    sides_G = assigned(counts_GC, targets_SC, generator(rows.seed, "split"))
    _tell_large(counts_GC[:, -1], sides_G, wanted, names, known)
    return sides_G[groups]


def assigned(counts_GC: np.ndarray, targets_SC: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The side of each group, int16 [G], every side with one group at least.

    The largest groups come first. Each goes where it lowers most, summed over sides and classes, the squared distance from the
    target in proportion to it, so that all sides fill up evenly; groups of one size come in an order drawn at random.
    """
    shuffled = rng.permutation(len(counts_GC))
    sizes_G = counts_GC[:, -1]
    sides_G = np.full(len(counts_GC), -1, dtype=np.int16)
    if len(counts_GC) > _ONE_BY_ONE:
        _deal_alike(counts_GC, targets_SC, shuffled, sides_G)
    present_SC = np.stack([counts_GC[sides_G == side].sum(0) for side in range(len(targets_SC))]).astype(float)
    rest = shuffled[sides_G[shuffled] < 0]
    weights_SC = 1 / np.maximum(targets_SC, 1e-9)
    weights_SC[:, -1] *= max(1, counts_GC.shape[1] - 1)  # the size counts as much as all classes together
    for group in rest[np.argsort(-sizes_G[rest], kind="stable")]:
        counts_C = counts_GC[group]
        changes_S = (counts_C * (counts_C + 2 * (present_SC - targets_SC)) * weights_SC).sum(1)
        side = int(np.argmin(changes_S))
        sides_G[group] = side
        present_SC[side] += counts_C
    for side in range(len(targets_SC)):
        if not (sides_G == side).any():
            spare = np.bincount(sides_G, minlength=len(targets_SC))[sides_G] > 1
            smallest = shuffled[spare[shuffled]]
            sides_G[smallest[np.argmin(sizes_G[smallest])]] = side
    return sides_G


def _deal_alike(counts_GC: np.ndarray, targets_SC: np.ndarray, shuffled: np.ndarray, sides_G: np.ndarray) -> None:
    """Give sides to most of the groups that many others are like, in proportion to the targets."""
    _, kinds = np.unique(counts_GC, axis=0, return_inverse=True)
    ordered = shuffled[np.argsort(kinds.reshape(-1)[shuffled], kind="stable")]
    shares_S = targets_SC[:, -1] / targets_SC[:, -1].sum()
    start = 0
    for number in np.bincount(kinds.reshape(-1)):
        for side, part in enumerate(np.floor(number * shares_S).astype(np.int64)):
            sides_G[ordered[start : start + part]] = side
            start, number = start + part, number - part
        start += number


def _counted(groups_N: np.ndarray, num_groups: int, rows: Rows) -> np.ndarray:
    """Rows of each group by class, and behind them all, int64 [G, C + 1]."""
    sizes = np.bincount(groups_N, minlength=num_groups)[:, None]
    if rows.classes is None or num_groups * len(rows.classes[1]) > _MOST_CELLS:
        return sizes
    codes, names = rows.classes
    cells = np.bincount(groups_N.astype(np.int64) * len(names) + codes, minlength=num_groups * len(names))
    return np.concatenate([cells.reshape(num_groups, len(names)), sizes], axis=1)


def _tell_large(sizes_G: np.ndarray, sides_G: np.ndarray, wanted: Sequence[int], names: Sequence[str], known) -> None:
    smallest = int(np.argmin(wanted))
    if (largest := sizes_G.max()) > wanted[smallest]:
        got = np.bincount(sides_G, weights=sizes_G, minlength=len(wanted)).astype(np.int64)
        told = ", ".join(f"{name} {size:,}" for name, size in zip(names, got, strict=True))
        console.notice(
            f"the group '{known[int(np.argmax(sizes_G))].as_py()[:50]}' holds {largest:,} rows, more than the "
            f"{wanted[smallest]:,} wanted for {names[smallest]}; groups stay whole, and the rows are: {told}"
        )
