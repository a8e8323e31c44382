"""Parquet: only the wanted columns are read."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Source, Wanted
from llmtune.data.readers.stream import open_bytes
from llmtune.errors import DataError
from llmtune.failures import is_the_systems


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Rows numbered from 1; columns keep their types.

    Raises:
        DataError: a missing column, a truncated or damaged file.
    """
    import pyarrow.parquet as pq

    first = 1
    with open_bytes(source.path, source.name, gzipped=source.gzipped) as stream:
        try:
            file = pq.ParquetFile(pa.BufferReader(stream.read()) if source.gzipped else stream)
            found = wanted.among(file.schema_arrow.names, where=source.name)
            for batch in file.iter_batches(batch_size=CHUNK_ROWS, columns=found):
                columns = {name: batch.column(name) for name in found}
                yield Chunk(columns, np.arange(first, first + batch.num_rows))
                first += batch.num_rows
        except (pa.ArrowException, OSError) as e:
            if is_the_systems(e):
                raise
            message = f"the Parquet file is damaged or cut off: {str(e).splitlines()[0]}"
            raise DataError(message, where=source.name, remedy="fetch or write it again") from None
