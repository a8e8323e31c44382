"""Which rows stand in an epoch, and how often, where classes are to be of other sizes than they are. C: classes."""

import numpy as np

from llmtune.config.sections.balance import OverSampling, Sampling, TemperatureSampling, UnderSampling
from llmtune.randomness import generator


def class_sizes(sampling: Sampling, counts_C: np.ndarray) -> np.ndarray:
    """Rows of each class in an epoch, int64 [C]; a class without rows stays without.

    Args:
        sampling: the rule.
        counts_C: rows of each class that there are, not all zero.
    """
    match sampling:
        case OverSampling():
            least = round(sampling.ratio * int(counts_C.max()))
            return np.where(counts_C > 0, np.maximum(counts_C, least), 0)
        case UnderSampling():
            most = round(int(counts_C[counts_C > 0].min()) / sampling.ratio)
            return np.minimum(counts_C, most)
        case TemperatureSampling():
            shares_C = np.where(counts_C > 0, counts_C ** (1 / sampling.temperature), 0.0)
            return _whole(shares_C / shares_C.sum() * counts_C.sum(), total=int(counts_C.sum()))


class ClassSampler:
    """The rows of each epoch, as a pure function of seed and epoch.

    A class that needs more rows than it has repeats all of them equally often before it draws the rest; what is drawn goes
    around its rows in an order of its own, so that each is taken once before any is taken twice.

    Args:
        labels_N: class of each row.
        sizes_C: rows of each class in an epoch; 0 where there are none.
        seed: of the run.

    Attributes:
        num_rows: of an epoch; all have the same number.
    """

    def __init__(self, labels_N: np.ndarray, sizes_C: np.ndarray, *, seed: int):
        ends_C = np.cumsum(np.bincount(labels_N, minlength=len(sizes_C)))
        self._rows = np.split(np.argsort(labels_N, kind="stable"), ends_C[:-1])
        for label, rows in enumerate(self._rows):
            generator(seed, "sampling", label).shuffle(rows)
        self._sizes_C = sizes_C
        self.num_rows = int(sizes_C.sum())

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows of an epoch, class by class, and how often each came before in the same epoch: two int64 [num_rows]."""
        rows, repeats = [], []
        for of_class, size in zip(self._rows, self._sizes_C.tolist(), strict=True):
            if size:
                rounds, rest = divmod(size, len(of_class))
                drawn = of_class[np.arange(epoch * rest, (epoch + 1) * rest) % len(of_class)]
                rows += [of_class] * rounds + [drawn]
                repeats.append(np.arange(size) // len(of_class))
        return np.concatenate(rows), np.concatenate(repeats)


def _whole(parts_C: np.ndarray, *, total: int) -> np.ndarray:
    """Whole numbers near the parts that add up to their total: the largest remainders are rounded up."""
    floors_C = np.floor(parts_C).astype(np.int64)
    largest = np.argsort(floors_C - parts_C, kind="stable")[: total - int(floors_C.sum())]
    floors_C[largest] += 1
    return floors_C
