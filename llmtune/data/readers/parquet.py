"""Parquet: only the wanted columns are read, and of a row group no more than a batch is in memory at a time."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Source, Wanted, chunk_of
from llmtune.data.readers.stream import open_bytes
from llmtune.errors import DataError
from llmtune.failures import is_the_systems

_CHUNK_BYTES = 16 << 20  # of rows that are read at once, as far as the file's own figures tell
_PAGES = 1 << 20  # bytes of a column that are fetched at once


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Rows numbered from 1; columns keep their types. A gzipped file is unpacked into a file without a name first.

    Raises:
        DataError: a missing column, a truncated or damaged file.
    """
    import pyarrow.parquet as pq

    first = 1
    with _opened(source) as stream:
        try:
            file = pq.ParquetFile(stream, buffer_size=_PAGES, pre_buffer=False)
            wanted = wanted.of(file.schema_arrow.names, where=source.name)
            found = wanted.among(file.schema_arrow.names, where=source.name)
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata, found), columns=found):
                columns = {name: batch.column(name) for name in found}
                yield chunk_of(columns, np.arange(first, first + batch.num_rows), wanted)
                first += batch.num_rows
        except (pa.ArrowException, OSError) as e:
            if is_the_systems(e):
                raise
            message = f"the Parquet file is damaged or cut off: {str(e).splitlines()[0]}"
            raise DataError(message, where=source.name, remedy="fetch or write it again") from None


@contextmanager
def _opened(source: Source) -> Iterator[BinaryIO]:
    with open_bytes(source.path, source.name, gzipped=source.gzipped) as stream:
        if not source.gzipped:
            yield stream
            return
        with tempfile.TemporaryFile(dir=source.scratch) as unpacked:  # Parquet is read from its end
            shutil.copyfileobj(stream, unpacked, _PAGES)
            unpacked.seek(0)
            yield unpacked


def _batch_rows(metadata: Any, columns: list[str]) -> int:
    """Rows of a batch, so that those of the row group with the longest ones stay within bounds."""
    longest = 1.0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        parts = (group.column(i) for i in range(group.num_columns))
        size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
        longest = max(longest, size / max(1, group.num_rows))
    return max(1, min(CHUNK_ROWS, int(_CHUNK_BYTES / longest)))
