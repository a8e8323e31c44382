"""Plain text: every line is a row."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from llmtune.data.readers.columns import Chunk, Source, Wanted
from llmtune.data.readers.stream import text_lines

COLUMN = "text"


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Lines in the column 'text', each ended by `\\n` as in the file (`\\r\\n` and `\\r` too become `\\n`)."""
    wanted.among((COLUMN,), where=source.name, hint=": plain text has this one column")
    first = 1
    for lines in text_lines(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding):
        texts = [line.replace("\r\n", "\n").replace("\r", "\n") for line in lines]
        yield Chunk({COLUMN: pa.array(texts, pa.string())}, np.arange(first, first + len(lines)))
        first += len(lines)
