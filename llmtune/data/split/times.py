"""The newest rows, by a column of dates or numbers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune import console
from llmtune.config.sections.split import SplitConfig, TimeSplit
from llmtune.data.sources import place
from llmtune.data.split.rows import Rows, Sides
from llmtune.errors import DataError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def newest(rows: Rows, config: SplitConfig, wanted: dict[str, int]) -> Sides:
    """The newest rows for the test, the newest of the others for validation. Rows of one time are never parted.

    Raises:
        DataError: a time is missing or cannot be read, or there are too few different times.
    """
    times_N = times_of(rows.table, config)
    if len(np.unique(times_N)) <= len(wanted):
        raise DataError(
            f"the column '{config.time_column}' holds {len(np.unique(times_N))} different times: too few for "
            f"{', '.join(wanted)} and training, since rows of one time stay together",
            where="split.time_column",
            remedy="choose another column, name files for these splits, or use split=random",
        )
    order = np.argsort(times_N, kind="stable").astype(np.int32)
    sorted_N, end, sides = times_N[order], len(order), {}
    for number, (name, size) in enumerate(wanted.items(), 1):
        start = _cut(sorted_N[:end], size, left=len(wanted) - number)
        if end - start != size:
            console.notice(f"{end - start:,} rows for {name} instead of {size:,}, since rows of one time stay together")
        sides[name], end = order[start:end], start
    return sides


def _cut(sorted_times: np.ndarray, size: int, *, left: int) -> int:
    """The first of the newest rows: about `size` of them, and before them one time more than `left` sides need."""
    starts = np.flatnonzero(np.diff(sorted_times)) + 1  # of each time but the first
    possible = starts[left:]
    return int(possible[np.argmin(np.abs(len(sorted_times) - possible - size))])


def times_of(table: pa.Table, config: TimeSplit) -> np.ndarray:
    """The column `time` as numbers that grow with time: float64, or for dates microseconds since 1970, int64 [N].

    The first row decides whether they are numbers or dates. Dates without a time zone are taken as UTC.

    Raises:
        DataError: names the first row that cannot be read.
    """
    read = _reader(table["time"][0].as_py(), config.time_format)
    times_N = np.empty(table.num_rows, dtype=np.float64 if read is _number else np.int64)
    start = 0
    for chunk in table["time"].chunks:
        encoded = chunk.fill_null("").dictionary_encode()  # the same days come up again and again
        texts = encoded.dictionary.to_pylist()
        try:
            known = np.array([read(text.strip()) for text in texts], dtype=times_N.dtype)
        except ValueError:
            bad = next(text for text in texts if not _is_readable(read, text))
            at = start + pc.index(chunk.fill_null(""), bad).as_py()
            raise _unreadable(bad, config, is_number=read is _number, where=place(table, at)) from None
        times_N[start : start + len(chunk)] = known[encoded.indices.to_numpy()] if len(chunk) else known
        start += len(chunk)
    return times_N


def _reader(first: str | None, time_format: str | None) -> Callable[[str], float]:
    if time_format is not None:
        return lambda text: _microseconds(datetime.strptime(text, time_format))
    return _number if _is_readable(_number, first or "") else lambda text: _microseconds(datetime.fromisoformat(text))


def _is_readable(read: Callable[[str], float], text: str) -> bool:
    try:
        read(text.strip())
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    number = float(text)
    if not np.isfinite(number):
        raise ValueError(text)
    return number


def _microseconds(date: datetime) -> int:
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def _unreadable(text: str, config: TimeSplit, *, is_number: bool, where: str) -> DataError:
    if not text.strip():
        return DataError("the time is empty", where=where, remedy="set it, or leave the row out with data.where")
    if config.time_format is not None:
        kind, remedy = f"does not read as split.time_format={config.time_format}", "correct the row or the format"
    elif is_number:
        kind, remedy = "is no number, as those before it are", "write all times alike"
    else:
        kind = "is no ISO date such as 2024-03-31 or 2024-03-31T08:00, and no number"
        remedy = "name the form of the dates: split.time_format=%d.%m.%Y, for example"
    return DataError(f"the time '{text[:50]}' {kind}", where=where, remedy=remedy)
