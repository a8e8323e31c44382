"""CoNLL columns: a word a line with its annotations beside it, and a blank line behind each sentence."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import pyarrow as pa

from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Source, Wanted
from llmtune.data.readers.lists import LISTS
from llmtune.data.readers.stream import text_lines
from llmtune.errors import DataError

FIRST, LAST = "text", "label"  # columns of a file whose columns are not named
_DOCUMENT = "-DOCSTART-"
_LONGEST = 100_000  # words of a sentence


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Sentences, each a row of lists, with the line of its first word; lines that begin a document and comments are skipped.

    Columns are divided by tabs where a line holds one, else by any white space. A line of white space alone is blank.

    Raises:
        DataError: a line of another width, a column that is not there, an endless sentence.
    """
    names, positions = source.column_names, None
    rows, sentences = [], []
    for line, words in _sentences(source):
        if positions is None:
            names = names or _names(len(words[0]))
            _check_width(names, len(words[0]), source, line)
            hint = "" if source.column_names else "; the columns of a CoNLL file are named by data.column_names"
            found = wanted.among(names, where=f"{source.name}:{line}", hint=hint)
            positions = {name: names.index(name) for name in found}
        rows.append(line)
        sentences.append(words)
        if len(rows) == CHUNK_ROWS:
            yield _chunk(rows, sentences, positions)
            rows, sentences = [], []
    if rows:
        yield _chunk(rows, sentences, positions)


def _names(width: int) -> tuple[str, ...]:
    return (FIRST, *(f"column_{i}" for i in range(2, width)), LAST)[:width]


def _chunk(rows: list[int], sentences: list[list[list[str]]], positions: dict[str, int]) -> Chunk:
    columns = {name: pa.array([[word[at] for word in s] for s in sentences], LISTS) for name, at in positions.items()}
    return Chunk(columns, np.array(rows))


def _sentences(source: Source) -> Iterator[tuple[int, list[list[str]]]]:
    """The fields of each word of a sentence, and the line of its first word."""
    words: list[list[str]] = []
    width, first = None, 0
    lines = chain.from_iterable(text_lines(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding))
    for number, line in enumerate(lines, 1):
        if line.isspace():
            if words:
                yield first, words
            words = []
            continue
        fields = [field.strip() for field in line.rstrip("\r\n").split("\t")] if "\t" in line else line.split()
        if fields[0] == _DOCUMENT or (not words and _is_comment(fields, width)):
            continue
        width = width or len(fields)
        if len(fields) != width:
            remedy = "divide the columns by tabs alone or by spaces alone, and sentences by a blank line"
            raise DataError(f"expected {width} columns, got {len(fields)}", where=f"{source.name}:{number}", remedy=remedy)
        if len(words) == _LONGEST:
            remedy = "put a blank line behind each sentence"
            raise DataError(f"the sentence is longer than {_LONGEST:,} words", where=f"{source.name}:{first}", remedy=remedy)
        first = number if not words else first
        words.append(fields)
    if words:
        yield first, words


def _is_comment(fields: list[str], width: int | None) -> bool:
    """`# text = ...` before a sentence; the word # has as many columns as others."""
    return fields[0].startswith("#") and (len(fields) != width if width else "=" in fields)


def _check_width(names: tuple[str, ...], width: int, source: Source, line: int) -> None:
    if len(names) != width:
        message = f"there are {width} columns, but {len(names)} data.column_names"
        raise DataError(message, where=f"{source.name}:{line}", remedy="name each column")
