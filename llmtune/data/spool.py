"""Tables of any size: a small one stays in memory, a large one lies in a file without a name, mapped into memory."""

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

LIMIT = 64 << 20  # bytes of a table that is held in memory
_WRITE_ROWS = 20_000


class Spool:
    """Makes tables out of batches that come one by one.

    Args:
        folder: on whose disk large tables lie; they are gone with the process. None: all are held in memory.
        limit: bytes up to which a table is held in memory.
    """

    def __init__(self, folder: Path | None = None, *, limit: int = LIMIT):
        self._folder, self._limit = folder, limit

    @property
    def folder(self) -> Path | None:
        """For what has to lie on a disk for a while."""
        return self._folder

    def table(self, batches: Iterable[pa.RecordBatch]) -> pa.Table | None:
        """The batches as one table; a column that some of them lack is null there. None: there is no batch.

        Raises:
            OSError: the disk is full.
        """
        parts: list[pa.Table] = []
        held: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            held.append(batch)
            size += batch.nbytes
            if self._folder is not None and size > self._limit:
                parts += [*self._on_disk(held)]
                held, size = [], 0
        if parts:
            parts += [*self._on_disk(held)]
            held = []
        parts += [pa.Table.from_batches([*run]) for _, run in groupby(held, key=lambda batch: batch.schema)]
        return pa.concat_tables(parts, promote_options="default").unify_dictionaries() if parts else None

    def filtered(self, table: pa.Table, mask_N: np.ndarray) -> pa.Table:
        """The rows of a table for which the mask is true."""
        return self.table(_filtered(table, mask_N)) or table.schema.empty_table()

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of zeros to be filled.

        Raises:
            OSError: the disk is full.
        """
        size = math.prod(shape) * dtype.itemsize
        if self._folder is None or size <= self._limit:
            return np.zeros(shape, dtype)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told now, not by a signal when it is written to
            return np.memmap(file, dtype, mode="r+", shape=shape)

    def _on_disk(self, batches: list[pa.RecordBatch]) -> Iterator[pa.Table]:
        for schema, run in groupby(batches, key=lambda batch: batch.schema):
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".rows-") as file:
                with pa.OSFile(file.name, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                    for batch in run:
                        writer.write_batch(batch)
                yield pa.ipc.open_stream(pa.memory_map(file.name)).read_all()


def batches_of(table: pa.Table, *, rows: int, size: int) -> Iterator[pa.RecordBatch]:
    """A table in batches of at most so many rows, and of about so many bytes unless a single row holds more."""
    for batch in table.to_batches(max_chunksize=rows):
        if batch.num_rows:  # none are left of a chunk from which no row was taken
            step = max(1, batch.num_rows * size // max(size, batch.nbytes))
            yield from (batch.slice(start, step) for start in range(0, batch.num_rows, step))


def _filtered(table: pa.Table, mask_N: np.ndarray) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in table.to_batches(max_chunksize=_WRITE_ROWS):
        mask = mask_N[start : start + batch.num_rows]
        start += batch.num_rows
        if mask.any():
            yield batch.filter(pa.array(mask))
