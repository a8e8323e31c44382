"""How the fields of a CSV or TSV file are divided and enclosed, where the user does not say and the usual way does not fit."""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from llmtune import console
from llmtune.data.readers.columns import Source, Wanted
from llmtune.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
_ROWS = 1_000  # that a way of reading has to fit


def found(text: str, source: Source, wanted: Wanted) -> Source:
    """The source as it is if its header names the wanted columns, else with the only delimiter and quote that fit.

    That is told. To fit is that the header line holds every wanted column, or each row as many fields as there are names for,
    and that the rows that follow are all as wide. Where nothing fits, the usual way is kept and will complain.

    Args:
        text: with which the file begins.
        source: with the usual delimiter and quote of its format.
        wanted: columns.

    Raises:
        DataError: there are several ways.
    """
    if _has_columns(_rows(text, source, most=1), source, wanted):
        return source
    fitting = [way for way in _others(text, source) if _fits(text, way, wanted)]
    if not fitting:
        return source
    if len(fitting) > 1:
        remedy = f"set {' or '.join(_keys(way, source) for way in fitting)}"
        raise DataError("the fields can be divided in several ways", where=f"{source.name}:1", remedy=remedy)
    [way] = fitting
    insisting = _keys(source, way)
    console.notice(f"{source.name} is read with {_keys(way, source)}, which alone fits its header; {insisting} insists")
    return way


def reader(lines: Iterable[str], source: Source) -> Any:
    """The csv module's reader of these lines."""
    if source.quote is None:
        return csv.reader(lines, delimiter=source.delimiter, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=source.delimiter, quotechar=source.quote, strict=True)


def _others(text: str, source: Source) -> Iterator[Source]:
    """Other ways to read; with a single quote only where the file begins with it."""
    has_single = not source.is_quote_told and source.quote is not None and text.lstrip().startswith("'")
    for delimiter in [source.delimiter] if source.is_delimiter_told else DELIMITERS:
        way = replace(source, delimiter=delimiter, quote="'" if has_single else source.quote)
        if way != source:
            yield way


def _has_columns(rows: list[list[str]], source: Source, wanted: Wanted) -> bool:
    if source.column_names is not None:
        return bool(rows) and all(len(row) == len(source.column_names) for row in rows)
    return bool(rows) and all(name in rows[0] for name in wanted.required)


def _fits(text: str, source: Source, wanted: Wanted) -> bool:
    rows = _rows(text, source, most=_ROWS)
    return _has_columns(rows, source, wanted) and len(set(map(len, rows))) == 1


def _rows(text: str, source: Source, *, most: int) -> list[list[str]]:
    """The first rows, as far as they can be read; of a text that ends within a line, without the last if there are others."""
    rows: list[list[str]] = []
    try:
        for row in islice(filter(None, reader(io.StringIO(text, newline=""), source)), most):
            rows.append(row)
    except csv.Error:
        return rows
    is_whole = len(rows) in (1, most) or text.endswith(("\n", "\r"))
    return rows if is_whole else rows[:-1]


def _keys(way: Source, source: Source) -> str:
    """What tells a way of reading apart from another one, as overrides."""
    delimiter = "\\t" if way.delimiter == "\t" else way.delimiter
    keys = [f"data.delimiter='{delimiter}'"] if way.delimiter != source.delimiter else []
    quote = f"'{way.quote}'" if way.quote != "'" else f'"{way.quote}"'
    return " ".join([*keys, f"data.quote={quote}"] if way.quote != source.quote else keys)
