"""What a model said of each example of a split, in example order, on the disk instead of in memory."""

import os
import tempfile
from pathlib import Path

import numpy as np

from llmtune.tasks.base import Scores


class Answers:
    """Arrays over the examples of a split, mapped from files that have no name and vanish with the process.

    Answers for each token [B, L] are as wide as those of the first batch, whose rows are the longest, with zeros at the end.

    Args:
        folder: on a disk with room.
        num_rows: examples of the split.

    `arrays` holds the task's outputs, `loss` (each example's sum over its targets) and `num_targets`.
    """

    def __init__(self, folder: Path, num_rows: int):
        self.arrays: dict[str, np.ndarray] = {}
        self._folder, self._num_rows = folder, num_rows

    def put(self, scores: Scores) -> None:
        """Keep the answers of one batch.

        Raises:
            OSError: the disk is full.
        """
        for name, values in {**scores.outputs, "loss": scores.loss_sums, "num_targets": scores.weights}.items():
            if name not in self.arrays:
                self.arrays[name] = self._mapped((self._num_rows, *values.shape[1:]), values.dtype)
            at = (scores.example_ids, slice(values.shape[1])) if values.ndim > 1 else scores.example_ids
            self.arrays[name][at] = values

    def _mapped(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        with tempfile.TemporaryFile(dir=self._folder) as file:
            # Without room that is reserved, a full disk would end the process at some later access.
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * dtype.itemsize)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
