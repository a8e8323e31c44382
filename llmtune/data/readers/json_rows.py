"""JSON: a list of objects, or such a list under "data". JSONL: one object a line."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Source, Wanted, text_array
from llmtune.data.readers.lists import list_array
from llmtune.data.readers.stream import text_blocks, text_lines
from llmtune.errors import DataError

_CORRECT = "correct or remove the line"


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """The objects of a JSON file, numbered from 1.

    Raises:
        DataError: bad JSON with its line, something else than a list of objects, a column that no object has.
    """
    try:
        content = json.loads("".join(text_blocks(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding)))
    except json.JSONDecodeError as e:
        remedy = "one object a line is data.format=jsonl" if e.msg == "Extra data" else "correct the file"
        raise DataError(f"bad JSON in column {e.colno}: {e.msg}", where=f"{source.name}:{e.lineno}", remedy=remedy) from None
    except (ValueError, RecursionError) as e:
        raise DataError(f"bad JSON: {e}", where=source.name) from None
    objects = content.get("data") if isinstance(content, dict) else content
    if not isinstance(objects, list):
        message = 'the file is neither a list of objects nor {"data": [...]}'
        raise DataError(message, where=source.name, remedy="one object a line is data.format=jsonl")
    collector = _Collector(source, wanted)
    for start in range(0, len(objects), CHUNK_ROWS):
        part = objects[start : start + CHUNK_ROWS]
        yield collector.chunk(part, range(start + 1, start + 1 + len(part)))
    collector.close()


def read_lines(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """The objects of a JSONL file; blank lines are skipped.

    Raises:
        DataError: see `read`.
    """
    collector = _Collector(source, wanted)
    line = 0
    for lines in text_lines(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding):
        objects, rows = [], []
        for text in lines:
            line += 1
            if text.isspace():
                continue
            try:
                objects.append(json.loads(text))
            except json.JSONDecodeError as e:
                raise DataError(
                    f"bad JSON in column {e.colno}: {e.msg}", where=f"{source.name}:{line}", remedy=_CORRECT
                ) from None
            except (ValueError, RecursionError) as e:
                raise DataError(f"bad JSON: {e}", where=f"{source.name}:{line}", remedy=_CORRECT) from None
            rows.append(line)
        if objects:
            yield collector.chunk(objects, rows)
    collector.close()


class _Collector:
    """Objects to columns. A key that an object lacks is an empty value; one that all of them lack is a missing column."""

    def __init__(self, source: Source, wanted: Wanted):
        self._source, self._wanted = source, wanted
        self._keys: dict[str, None] | None = None  # of all objects, in order; None: there was no object

    def chunk(self, objects: Sequence[Any], rows: Sequence[int]) -> Chunk:
        for row, value in zip(rows, objects, strict=True):
            if not isinstance(value, dict):
                message = f'expected an object such as {{"text": ...}}, got {json.dumps(value)[:50]}'
                raise DataError(message, where=f"{self._source.name}:{row}")
        self._keys = (self._keys or {}) | dict.fromkeys(key for value in objects for key in value)
        # Numbers are needed in every row: without the key in the first rows there is no need to read on.
        numeric = {name: key for name, key in self._wanted.required.items() if key == "data.feature_columns"}
        Wanted(numeric).among(list(self._keys), where=self._source.name)
        columns = {}
        for name in dict.fromkeys([*self._wanted.required, *self._wanted.optional]):
            make = list_array if name in self._wanted.lists else text_array
            columns[name] = make([value.get(name) for value in objects], column=name, name=self._source.name, rows=rows)
        return Chunk(columns, np.array(rows))

    def close(self) -> None:
        if self._keys is not None:
            self._wanted.among(list(self._keys), where=self._source.name)
