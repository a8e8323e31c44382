"""Columns as files hold them, and as the rest of the house wants them: text, or finite numbers."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data.readers.stream import MAX_FIELD
from llmtune.errors import DataError
from llmtune.paths import nearest_first

CHUNK_ROWS = 20_000
_WHOLE_FLOATS = 2.0**53  # from here on a float is not a count any more


@dataclass(frozen=True)
class Source:
    """One file to be read.

    Attributes:
        path: where it lies.
        name: the same as the user wrote it, for messages.
        gzipped: whether it has to be unpacked.
        encoding: of the text, or 'auto'.
        delimiter: between the fields of a CSV or TSV file.
        quote: that encloses such fields; None: quotes are literal text.
        is_delimiter_told, is_quote_told: whether another one is not to be looked for.
        column_names: of such a file without a header line.
        scratch: folder for what has to be unpacked before it can be read; None: the system's.
    """

    path: Path
    name: str
    gzipped: bool
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str | None = '"'
    is_delimiter_told: bool = True
    is_quote_told: bool = True
    column_names: tuple[str, ...] | None = None
    scratch: Path | None = None


@dataclass(frozen=True)
class Wanted:
    """The columns that are asked for: by config key, those that may be absent, and those that may hold lists.

    Those in `nested` are handed on as Python values, and may be absent, too. `choose`, given the columns of a source and its
    name, says what is wanted of it, where that depends on what there is.
    """

    required: dict[str, str]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    choose: "Callable[[Wanted, Sequence[str], str], Wanted] | None" = None

    def of(self, present: Sequence[str], *, where: str) -> "Wanted":
        """What is wanted of a source with these columns."""
        return self.choose(self, present, where) if self.choose is not None else self

    @property
    def plain(self) -> list[str]:
        """The columns that become arrays."""
        return list(dict.fromkeys([*self.required, *self.optional]))

    def among(self, present: Sequence[str], *, where: str, hint: str = "") -> list[str]:
        """The wanted columns that are present.

        Raises:
            DataError: a required one is not, or one stands there twice.
        """
        if self.choose is not None:
            return self.of(present, where=where).among(present, where=where, hint=hint)
        for name, key in self.required.items():
            if name not in present:
                shown = listed(nearest_first(name, list(present)), limit=20)
                raise DataError(
                    f"there is no column '{name}'; there are {shown}",
                    where=where,
                    remedy=f"set {key} to one of them{hint}",
                )
        found = [name for name in dict.fromkeys([*self.plain, *self.nested]) if name in present]
        for name in found:
            if list(present).count(name) > 1:
                raise DataError(f"there are several columns '{name}'", where=where, remedy="rename all but one")
        return found


@dataclass(frozen=True)
class Chunk:
    """Some rows of a file: wanted columns as Arrow arrays, and for messages the line or number of each row.

    Where each row is a file of its own, `files` names them. `nested` holds the values of columns that are neither text nor
    lists of it, as JSON has them.
    """

    columns: dict[str, pa.Array]
    rows: np.ndarray
    files: pa.Array | None = None
    nested: dict[str, list[Any]] = field(default_factory=dict)

    def filter(self, keep_N: np.ndarray) -> "Chunk":
        """Some of the rows."""
        mask = pa.array(keep_N)
        files = self.files.filter(mask) if self.files is not None else None
        nested = {name: list(compress(values, keep_N.tolist())) for name, values in self.nested.items()}
        return Chunk({name: array.filter(mask) for name, array in self.columns.items()}, self.rows[keep_N], files, nested)


def chunk_of(columns: dict[str, pa.Array], rows: np.ndarray, wanted: Wanted) -> Chunk:
    """A chunk of typed columns, of which some are wanted as they are and some as Python values."""
    nested = {name: columns[name].to_pylist() for name in wanted.nested if name in columns}
    return Chunk({name: columns[name] for name in wanted.plain if name in columns}, rows, nested=nested)


Reader = Callable[[Source, Wanted], Iterator[Chunk]]


def plain_text(value: Any) -> str | None:
    """A JSON value as one would write it into a CSV file; whole floats without '.0'.

    Raises:
        TypeError: it is a list, a mapping, or something else that is no single value.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE_FLOATS else repr(value)
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"a {'mapping' if isinstance(value, dict) else type(value).__name__}")


def text_array(values: Sequence[Any], *, column: str, name: str, rows: Sequence[int]) -> pa.Array:
    """Values as text.

    Raises:
        DataError: one is no single value, or holds half of a surrogate pair.
    """
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        texts = []
    for row, value in zip(rows, values, strict=True):
        try:
            text = plain_text(value)
            (text or "").encode()
        except TypeError as e:
            raise DataError(f"column '{column}' holds {e}, not text", where=f"{name}:{row}") from None
        except UnicodeEncodeError:
            raise DataError(f"column '{column}' holds half of a surrogate pair", where=f"{name}:{row}") from None
        texts.append(text)
    return pa.array(texts, pa.string())


def as_text(array: pa.Array, *, column: str, name: str, rows: np.ndarray) -> pa.Array:
    """A column of any single-valued type as strings, none longer than MAX_FIELD.

    Raises:
        DataError: the column holds lists, records, bytes or invalid UTF-8, or a text is too long.
    """
    kind = array.type
    if isinstance(kind, pa.DictionaryType):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_floating(kind) or pa.types.is_null(kind):
        array = text_array(array.to_pylist(), column=column, name=name, rows=rows)
    elif not pa.types.is_string(kind):
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise DataError(
                f"column '{column}' holds values of type {kind}, not text",
                where=name,
                remedy="choose another column",
            )
        array = _as_strings(array, column=column, name=name)
    _require_utf8(array, column=column, name=name, rows=rows)
    lengths = pc.binary_length(array)
    if (pc.max(lengths).as_py() or 0) > MAX_FIELD:
        row = rows[pc.index(pc.greater(lengths, MAX_FIELD), True).as_py()]
        raise DataError(
            f"column '{column}' holds a text longer than {MAX_FIELD:,} bytes",
            where=f"{name}:{row}",
            remedy="cut it into rows",
        )
    return array


def _as_strings(array: pa.Array, *, column: str, name: str) -> pa.Array:
    try:
        return array.cast(pa.string())
    except pa.ArrowException as e:
        told = f"column '{column}' holds values of type {array.type}, which cannot be read as text: {str(e).splitlines()[0]}"
        raise DataError(told, where=name, remedy="choose another column") from None


def _require_utf8(array: pa.Array, *, column: str, name: str, rows: np.ndarray) -> None:
    """Formats with typed columns promise UTF-8, but nobody has looked."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        for row, value in zip(rows, array.cast(pa.binary()).to_pylist(), strict=True):
            try:
                (value or b"").decode()
            except UnicodeDecodeError as e:
                message = f"column '{column}' holds invalid UTF-8 at byte {e.start} of the text"
                raise DataError(message, where=f"{name}:{row}", remedy="write the file again with texts in UTF-8") from None
        raise DataError(f"column '{column}' is damaged", where=name, remedy="fetch or write the file again") from None


def as_numbers(array: pa.Array, *, column: str, name: str, rows: np.ndarray) -> np.ndarray:
    """A column as numbers that are finite in float32, too; float64.

    Raises:
        DataError: names the first row that holds none.
    """
    values = array.to_pylist()
    try:
        numbers = np.array([float(value) for value in values], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array([_number(value) for value in values])
    is_finite = np.abs(numbers) <= np.finfo(np.float32).max
    if not is_finite.all():
        at = int(np.flatnonzero(~is_finite)[0])
        shown = "is empty" if values[at] in (None, "") else f"holds {values[at]!r}, which is no finite number"
        remedy = "correct or remove the row, or leave it out with data.where"
        raise DataError(f"column '{column}' {shown}", where=f"{name}:{rows[at]}", remedy=remedy)
    return numbers


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def listed(values: Collection[str | None], *, limit: int = 5) -> str:
    """A few values for a message."""
    shown = [f"'{value[:50]}'" if value is not None else "none" for value in list(values)[:limit]]
    return ", ".join(shown) + (", ..." if len(values) > limit else "")
