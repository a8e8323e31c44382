"""JSON: a list of objects, or such a list under "data". JSONL: one object a line."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Source, Wanted, text_array
from llmtune.data.readers.lists import list_array
from llmtune.data.readers.stream import MAX_FIELD, text_blocks, text_lines
from llmtune.errors import DataError

_CORRECT = "correct or remove the line"
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """The objects of a JSON file, numbered from 1.

    A list is parsed object by object, whatever its size; a file that begins with `{` is held in memory as a whole.

    Raises:
        DataError: bad JSON with its line, something else than a list of objects, a column that no object has.
    """
    blocks = text_blocks(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding)
    objects = _Stream(blocks, source.name)
    collector, first = _Collector(source, wanted), 1
    for part in _parts(objects.whole()["data"] if objects.is_mapping() else objects):
        yield collector.chunk(part, range(first, first + len(part)))
        first += len(part)
    collector.close()


def _parts(objects: Iterable[Any]) -> Iterator[list[Any]]:
    objects = iter(objects)
    while part := list(islice(objects, CHUNK_ROWS)):
        yield part


class _Stream:
    """The items of a JSON list that comes in blocks of text, or the whole of a mapping.

    Raises:
        DataError: bad JSON with its line, or something else than a list or {"data": list}.
    """

    def __init__(self, blocks: Iterator[str], name: str):
        self._blocks, self._name = blocks, name
        self._text, self._at = "", 0
        self._line, self._column = 1, 0  # where the text begins: its line, and the characters before it in that line
        self._decoder = json.JSONDecoder()

    def is_mapping(self) -> bool:
        return self._next() == "{"

    def whole(self) -> dict[str, Any]:
        self._text = "".join([self._text, *self._blocks])
        content = self._item()
        self._require_end()
        if not isinstance(content.get("data"), list):
            raise self._no_list()
        return content

    def __iter__(self) -> Iterator[Any]:
        if self._next() != "[":
            self._item()
            raise self._no_list()
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield self._item()
            while self._next() == ",":
                self._at += 1
                self._next()
                yield self._item()
            if self._next() != "]":
                self._complain("Expecting ',' delimiter")
            self._at += 1
        self._require_end()

    def _require_end(self) -> None:
        if self._next():
            self._complain("Extra data")

    def _next(self) -> str:
        """The next character that is no white space, and none at the end of the file."""
        while True:
            self._at = _WHITE_SPACE.match(self._text, self._at).end()
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _item(self) -> Any:
        """A value, with one character behind it at least, unless the file ends there: a number may go on."""
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as e:
                # What is cut off looks wrong, too; what is wrong still is when there is much more of it.
                if len(self._text) - self._at > MAX_FIELD or not self._more():
                    self._complain(e.msg, at=e.pos)
            except (ValueError, RecursionError) as e:
                raise DataError(f"bad JSON: {e}", where=self._name) from None
            else:
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _more(self) -> bool:
        """Read another block, and forget what was read before."""
        block = next(self._blocks, "")
        if not block:
            return False
        passed, self._text, self._at = self._text[: self._at], self._text[self._at :] + block, 0
        self._line += passed.count("\n")
        self._column = len(passed) - passed.rfind("\n") - 1 if "\n" in passed else self._column + len(passed)
        return True

    def _complain(self, what: str, *, at: int | None = None) -> NoReturn:
        before = self._text[: self._at if at is None else at]
        column = len(before) - before.rfind("\n") if "\n" in before else self._column + len(before) + 1
        remedy = "one object a line is data.format=jsonl" if what == "Extra data" else "correct the file"
        where = f"{self._name}:{self._line + before.count(chr(10))}"
        raise DataError(f"bad JSON in column {column}: {what}", where=where, remedy=remedy)

    def _no_list(self) -> DataError:
        message = 'the file is neither a list of objects nor {"data": [...]}'
        return DataError(message, where=self._name, remedy="one object a line is data.format=jsonl")


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
        self._wanted = self._wanted.of(list(self._keys), where=self._source.name)
        # Numbers are needed in every row: without the key in the first rows there is no need to read on.
        numeric = {name: key for name, key in self._wanted.required.items() if key == "data.feature_columns"}
        Wanted(numeric).among(list(self._keys), where=self._source.name)
        columns = {}
        for name in self._wanted.plain:
            make = list_array if name in self._wanted.lists else text_array
            columns[name] = make([value.get(name) for value in objects], column=name, name=self._source.name, rows=rows)
        nested = {name: [value.get(name) for value in objects] for name in self._wanted.nested}
        return Chunk(columns, np.array(rows), nested=nested)

    def close(self) -> None:
        if self._keys is not None:
            self._wanted.among(list(self._keys), where=self._source.name)
