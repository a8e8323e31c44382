"""Well-formed CSV and TSV, a block at a time: the csv module takes longer for a row than all the rest of its preparation.

Well-formed are equally wide rows, each ended by `\\n` or `\\r\\n`, with quotes around whole fields or doubled within
such quotes, and nowhere else.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LONGEST = 1 << 22  # bytes of a row: a longer one may be a quote that is never closed
_LINE_END, _RETURN = b"\n\r"


@dataclass(frozen=True)
class Block:
    """Rows of fields. R: rows, W: fields of a row.

    Attributes:
        data: the bytes in which the fields stand.
        starts, ends: of each field in the data, without the quotes around it, [R, W].
        lines: of the file, on which the rows start, [R].
        doubled: two quotes that stand for one within fields; None: there are none.
    """

    data: bytes
    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    doubled: str | None

    def column(self, index: int) -> pa.Array:
        """A field of every row, as strings."""
        bounds = np.stack([self.starts[:, index], self.ends[:, index]], axis=1).astype(np.int32)
        num_runs = max(bounds.size - 1, 0)  # the fields, and what is between them
        runs = pa.StringArray.from_buffers(num_runs, pa.py_buffer(bounds), pa.py_buffer(self.data))
        texts = runs.take(pa.array(np.arange(0, num_runs, 2)))
        return pc.replace_substring(texts, self.doubled, self.doubled[0]) if self.doubled else texts

    def first(self) -> list[str]:
        """The fields of the first row."""
        top = Block(self.data, self.starts[:1], self.ends[:1], self.lines[:1], self.doubled)
        return [top.column(i)[0].as_py() for i in range(self.starts.shape[1])]

    def after_first(self) -> "Block":
        return Block(self.data, self.starts[1:], self.ends[1:], self.lines[1:], self.doubled)


class WellFormed:
    """The rows with which a file begins, as far as they are well-formed; blank lines are skipped.

    Args:
        blocks: the text of the file.
        delimiter: between fields.
        quote: that encloses fields; None: quotes are literal text.
        width: fields of a row; None: those of the first one.

    Attributes:
        line: with which `rest` begins, once there are no more blocks, counted from 1.
    """

    def __init__(self, blocks: Iterator[str], *, delimiter: str, quote: str | None, width: int | None):
        self._blocks, self._delimiter, self._quote, self._width = blocks, delimiter.encode(), (quote or "").encode(), width
        self._rest = b""
        self.line = 1

    def __iter__(self) -> Iterator[Block]:
        """Blocks of one row or more."""
        if len(self._delimiter) > 1 or len(self._quote) > 1:
            return
        for text in self._blocks:
            self._rest += text.encode()
            if (block := self._parsed(self._rest)) is None:
                return
            if len(block.lines):
                yield block
            if len(self._rest) > _LONGEST:
                return
        if self._rest and (block := self._parsed(self._rest + b"\n")) is not None and len(block.lines):
            yield block

    def rest(self) -> Iterator[str]:
        """The text from the first block on that is not well-formed; nothing, if there is none."""
        return chain([self._rest.decode()] if self._rest else [], self._blocks)

    def _parsed(self, data: bytes) -> Block | None:
        """The rows that are complete, which are no longer part of the rest then; None if they are not well-formed."""
        content, marks, quotes = self._complete(np.frombuffer(data, np.uint8))
        if not self._are_around_fields(quotes, content) or _has_lone_return(content):
            return None
        is_end = content[marks] == _LINE_END
        starts, ends = np.concatenate([[0], marks + 1])[:-1], marks
        ends = ends - (is_end & (content[marks - 1] == _RETURN) & (starts < ends))
        is_field = ~is_end | (starts < ends) | ~np.concatenate([[True], is_end])[:-1]  # else it is a blank line
        starts, ends, is_end = starts[is_field], ends[is_field], is_end[is_field]
        if self._width is None and len(is_end):
            self._width = int(np.argmax(is_end)) + 1
        width = self._width or 1
        if not np.array_equal(np.flatnonzero(is_end) + 1, np.arange(width, len(is_end) + 1, width)):
            return None
        line_ends = np.flatnonzero(content == _LINE_END)
        lines = self.line + np.searchsorted(line_ends, starts[::width])
        self.line += len(line_ends)
        self._rest = self._rest[len(content) :]
        if len(quotes):
            is_quoted = content[starts] == self._quote[0]
            starts, ends = starts + is_quoted, ends - is_quoted
        has_doubled = bool((quotes[2::2] == quotes[1:-1:2] + 1).any())
        doubled = self._quote.decode() * 2 if has_doubled else None
        return Block(data, starts.reshape(-1, width), ends.reshape(-1, width), lines, doubled)

    def _complete(self, content: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The content up to its last line end outside of quotes; and where in it fields end, and quotes stand."""
        quotes = np.flatnonzero(content == self._quote[0]) if self._quote else np.empty(0, dtype=np.int64)
        marks = np.flatnonzero((content == self._delimiter[0]) | (content == _LINE_END))
        marks = marks[np.searchsorted(quotes, marks) % 2 == 0] if len(quotes) else marks
        line_ends = np.flatnonzero(content[marks] == _LINE_END)
        marks = marks[: line_ends[-1] + 1 if len(line_ends) else 0]
        content = content[: marks[-1] + 1 if len(marks) else 0]
        return content, marks, quotes[: np.searchsorted(quotes, len(content))]

    def _are_around_fields(self, quotes: np.ndarray, content: np.ndarray) -> bool:
        """Whether every other quote begins a field or follows a quote, and the rest end a field or are followed by one."""
        before, behind = content[quotes[0::2] - 1], content[quotes[1::2] + 1]
        borders = [self._delimiter[0], _LINE_END, *self._quote]
        is_begin = np.isin(before, borders) | (quotes[0::2] == 0)
        return bool(is_begin.all() and np.isin(behind, [*borders, _RETURN]).all())


def _has_lone_return(content: np.ndarray) -> bool:
    returns = np.flatnonzero(content == _RETURN)
    return bool((content[returns + 1] != _LINE_END).any())
