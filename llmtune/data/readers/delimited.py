"""CSV and TSV. Every column is text: 'NA' and 'null' stay what they are."""

import csv
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from llmtune.data.readers import dialect
from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Source, Wanted, chunk_of, text_array
from llmtune.data.readers.stream import MAX_FIELD, lines_of, text_blocks, text_lines
from llmtune.data.readers.well_formed import WellFormed
from llmtune.errors import DataError

_QUOTES = {'"': "double", "'": "single", None: "double"}


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Rows of a file with a header line, or with `source.column_names`; blank lines are skipped.

    Raises:
        DataError: a missing column, a row of another width, a quote that is not closed; and see stream.py.
    """
    names, positions = source.column_names, None
    blocks = text_blocks(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding)
    first = next(blocks, "")
    source = dialect.found(first, source, wanted)
    blocks = chain([first] if first else [], blocks)
    width = len(names) if names is not None else None
    well_formed = WellFormed(blocks, delimiter=source.delimiter, quote=source.quote, width=width)
    for block in well_formed:
        if names is None:
            names, block = tuple(block.first()), block.after_first()
        wanted = wanted.of(names, where=f"{source.name}:1")
        positions = positions or _positions(names, source, wanted)
        if len(block.lines):
            yield chunk_of({name: block.column(i) for name, i in positions.items()}, block.lines, wanted)
    rows = _Rows(source, lines_of(well_formed.rest(), source.name, first_line=well_formed.line), first_line=well_formed.line)
    if names is None:
        _, header = next(rows.batches(1), (None, [[]]))
        names = tuple(header[0])
        if not names:
            raise DataError("the file holds nothing but blank lines", where=source.name)
    rows.width = len(names)
    wanted = wanted.of(names, where=f"{source.name}:1")
    positions = positions or _positions(names, source, wanted)
    for numbers, fields in rows.batches(CHUNK_ROWS):
        columns = list(zip(*fields, strict=True))
        arrays = {n: text_array(columns[i], column=n, name=source.name, rows=numbers) for n, i in positions.items()}
        yield chunk_of(arrays, np.array(numbers), wanted)


def _positions(names: tuple[str, ...], source: Source, wanted: Wanted) -> dict[str, int]:
    """In a row, of the wanted columns."""
    found = wanted.among(names, where=f"{source.name}:1", hint=_hint(names, source))
    return {name: names.index(name) for name in found}


class _Rows:
    """Rows of fields with the line on which each starts; all as wide as `width`, once that is known."""

    def __init__(self, source: Source, lines: Iterator[list[str]], *, first_line: int):
        self.width: int | None = None
        self._source = source
        self._skipped = first_line - 1
        self._line = first_line  # on which the next row starts
        csv.field_size_limit(MAX_FIELD)
        self._reader = dialect.reader(chain.from_iterable(lines), source)

    def batches(self, size: int) -> Iterator[tuple[list[int], list[list[str]]]]:
        reader, width = self._reader, self.width
        while True:
            before, numbers, rows = reader.line_num, [], []
            try:
                for row in islice(reader, size):
                    if row:
                        if width is not None and len(row) != width:
                            raise self._ragged(row)
                        rows.append(row)
                        numbers.append(self._line)
                    self._line = self._skipped + reader.line_num + 1
            except csv.Error as e:
                raise self._malformed(str(e)) from None
            if rows:
                yield numbers, rows
            elif reader.line_num == before:
                return

    def _ragged(self, row: list[str]) -> DataError:
        named = " (as many as data.column_names)" if self._source.column_names else ""
        remedy = "complete or remove the row"
        if len(row) > self.width:
            quoted = f"enclose texts that hold the delimiter in {_QUOTES.get(self._source.quote, 'such')} quotes"
            remedy = quoted if self._source.quote else f"{quoted} and set data.quoting=true, or choose another data.delimiter"
        message = f"expected {self.width} fields{named}, got {len(row)}"
        return DataError(message, where=f"{self._source.name}:{self._line}", remedy=remedy)

    def _malformed(self, complaint: str) -> DataError:
        opened, last = self._quote_opened(), self._skipped + self._reader.line_num
        quote = self._source.quote
        remedy = (
            f"write a {_QUOTES.get(quote, 'such a')} quote inside a field twice ({quote}{quote}); "
            "if quotes are literal text, set data.quoting=false"
        )
        if opened is None:
            message = f"a field is longer than {MAX_FIELD:,} characters" if "limit" in complaint else f"bad row: {complaint}"
            return DataError(message, where=f"{self._source.name}:{self._line}", remedy="cut longer texts into rows")
        if "expected after" in complaint:
            message = f"the quote that opens here closes in line {last}, but the field goes on behind it"
        elif "limit" in complaint:
            message = f"the quote that opens here is still not closed after {MAX_FIELD:,} characters, in line {last}"
        else:
            message = f"the quote that opens here is never closed (the file ends with line {last})"
        return DataError(message, where=f"{self._source.name}:{opened}", remedy=remedy)

    def _quote_opened(self) -> int | None:
        """The line of the quote that opens the malformed field of the current row: the row is read once more."""
        source, quote = self._source, self._source.quote
        if quote is None:
            return None
        batches = text_lines(source.path, source.name, gzipped=source.gzipped, encoding=source.encoding)
        lines = chain.from_iterable(batches)
        text = "".join(islice(lines, self._line - 1, self._skipped + self._reader.line_num))
        at = 0
        while at < len(text):
            if text[at] != quote:
                at = text.find(self._source.delimiter, at) + 1
                if at == 0:
                    return None
                continue
            closing = text.find(quote, at + 1)
            while closing >= 0 and text.startswith(quote * 2, closing):
                closing = text.find(quote, closing + 2)
            if closing < 0 or text[closing + 1 : closing + 2] != self._source.delimiter:
                return self._line + text.count("\n", 0, at)
            at = closing + 2
        return None


def _hint(names: tuple[str, ...], source: Source) -> str:
    if source.column_names is not None:
        return ""
    other = next((d for d in dialect.DELIMITERS if d in names[0] and d != source.delimiter), None)
    if len(names) == 1 and other:
        shown = "format=tsv" if other == "\t" else f"delimiter='{other}'"
        return f"; the fields seem to be divided otherwise: data.{shown}"
    return "; for a file without a header line, name its columns in data.column_names"
