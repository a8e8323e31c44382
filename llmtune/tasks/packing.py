"""Several short rows in one of at most max_length tokens. N: rows, P: packed rows."""

import bisect
from collections.abc import Sequence

import numpy as np


def best_fit(lengths_N: np.ndarray, *, capacity: int) -> list[list[int]]:
    """The rows that share a packed row each: the longest first, each where it leaves least room (best fit decreasing).

    Args:
        lengths_N: of the rows, none longer than the capacity.
        capacity: of a packed row.

    Returns:
        The indices of the rows in each packed row, in ascending order.
    """
    packed: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (what is left, packed row), ascending
    for row in np.argsort(-lengths_N, kind="stable").tolist():
        length = int(lengths_N[row])
        at = bisect.bisect_left(room, (length, -1))
        if at == len(room):
            left, place = capacity, len(packed)
            packed.append([])
        else:
            left, place = room.pop(at)
        packed[place].append(row)
        bisect.insort(room, (left - length, place))
    return [sorted(rows) for rows in packed]


def joined(rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Token ids of several rows as one, where their answers lie in it, and the place of each token in its own row."""
    starts = np.cumsum([0, *(len(ids) for ids, _ in rows)])
    ids = np.concatenate([ids for ids, _ in rows])
    answers = np.concatenate([answers + start for (_, answers), start in zip(rows, starts, strict=False)])
    return ids, answers, np.concatenate([np.arange(len(ids)) for ids, _ in rows])
