"""All that llmtune says on a terminal: notices, progress, closing tables, errors. rich is imported on first use.

Progress and errors go to stderr, results to stdout. Where no terminal listens, the text is plain: no boxes, no colours,
no wrapping.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TextIO

from llmtune.errors import ConfigError, LlmtuneError

PLAIN_INTERVAL = 10.0  # seconds between two progress lines where no terminal listens

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_open_bars: list[str] = []


def notice(text: str) -> None:
    """One plain line to stderr; above the bar while one is shown. Of several ranks only the first speaks."""
    if is_main():
        print(printable(text), file=sys.stderr, flush=True)


def is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def printable(text: str) -> str:
    """Text of unknown origin with its control characters spelled out, so that it cannot steer the terminal."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


@contextmanager
def progress(description: str, *, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Show a long step. Yields `advance(n=1, live="")`: n more units are done; a text in `live` replaces the live line.

    `done` units were done before and count for no rate.

    On a terminal: a bar with rate and remaining time. A bar inside another one disappears when it is done.
    Elsewhere: a line every ten seconds and one at the end, the latter not for a short step inside another one.
    """
    is_nested = bool(_open_bars)
    _open_bars.append(description)
    try:
        with (_bar if sys.stderr.isatty() and is_main() else _lines)(description, total, unit, done, is_nested) as advance:
            yield advance
    finally:
        _open_bars.remove(description)


@contextmanager
def _bar(description: str, total: int | None, unit: str, before: int, is_nested: bool) -> Iterator[Callable[..., None]]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(elapsed_when_finished=True),
    ]
    bars = Progress(*columns, auto_refresh=False, expand=True)
    task = bars.add_task(printable(description), total=total, completed=before, count="")
    live_line = Text(no_wrap=True, overflow="ellipsis", style="dim")
    started, done = time.monotonic(), before

    def advance(n: int = 1, live: str = "") -> None:
        nonlocal done
        done += n
        bars.update(task, completed=done, count=_count(done, before, total, unit, time.monotonic() - started))
        if live:
            live_line.plain = printable(live)

    shown = Live(
        get_renderable=lambda: Group(bars, live_line) if live_line.plain else bars,
        console=_stderr(),
        refresh_per_second=8,
        transient=is_nested,
        redirect_stdout=sys.stdout.isatty(),  # else what is piped on would end up on the terminal
    )
    with shown:
        yield advance


@contextmanager
def _lines(description: str, total: int | None, unit: str, before: int, is_nested: bool) -> Iterator[Callable[..., None]]:
    started = told = time.monotonic()
    done, live_text, state = before, "", "stopped at "

    def tell(words: str) -> None:
        notice(f"{description}: {words}" + (f" | {live_text}" if live_text else ""))

    def advance(n: int = 1, live: str = "") -> None:
        nonlocal done, told, live_text
        done, live_text, now = done + n, live or live_text, time.monotonic()
        if now - told >= PLAIN_INTERVAL:
            told, elapsed = now, now - started
            left = f", {_clock((total - done) * elapsed / (done - before))} left" if total and before < done <= total else ""
            tell(_count(done, before, total, unit, elapsed) + left)

    try:
        yield advance
        state = ""
    finally:
        now = time.monotonic()
        if state or not is_nested or now - started >= PLAIN_INTERVAL:
            tell(f"{state}{_count(done, before, total, unit, now - started)} in {_clock(now - started)}")


def _count(done: int, before: int, total: int | None, unit: str, elapsed: float) -> str:
    rate = (done - before) / elapsed if elapsed > 0 else 0.0
    speed = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{done:,}{f'/{total:,}' if total is not None else ''} {unit}, {speed}/s"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def result_table(title: str, rows: list[tuple[str, str]]) -> None:
    """The closing table, on stdout."""
    if not is_main():
        return
    rows = [(printable(name), printable(value)) for name, value in rows]
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in rows), default=0)
        print("\n".join([printable(title), *(f"  {name:{width}}  {value}" for name, value in rows)]), flush=True)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    _stdout().print(table)


def jobs_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Many rows of several columns, on stdout: the jobs of a sweep, the recipes."""
    _table(title, header, rows, sys.stdout, numbers=())


def notice_table(title: str, header: list[str], rows: list[list[str]], *, numbers: tuple[int, ...]) -> None:
    """Rows of several columns, on stderr, as a notice is; columns of numbers stand to the right."""
    if is_main():
        _table(title, header, rows, sys.stderr, numbers=numbers)


def _table(title: str, header: list[str], rows: list[list[str]], stream: TextIO, *, numbers: tuple[int, ...]) -> None:
    header, rows = [printable(cell) for cell in header], [[printable(cell) for cell in row] for row in rows]
    if not stream.isatty():
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        padded = [
            "  ".join(f"{cell:{'>' if i in numbers else '<'}{widths[i]}}" for i, cell in enumerate(row))
            for row in [header, *rows]
        ]
        print("\n".join([printable(title), *(f"  {line.rstrip()}" for line in padded)]), file=stream, flush=True)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)), title_justify="left")
    for i, name in enumerate(header):
        table.add_column(Text(name), overflow="fold", justify="right" if i in numbers else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    (_stderr() if stream is sys.stderr else _stdout()).print(table)


def before_and_after(title: str, before: list[tuple[str, bool]], after: list[tuple[str, bool]]) -> None:
    """Two texts, on stdout, in pieces of which the marked ones differ; one line if none does."""
    lines = [("-", before, "red strike"), ("+", after, "bold green")] if before != after else [("=", before, "")]
    if not sys.stdout.isatty():
        texts = [f"  {sign} {printable(''.join(piece for piece, _ in parts))}" for sign, parts, _ in lines]
        print("\n".join([printable(title), *texts]), flush=True)
        return
    from rich.text import Text

    _stdout().print(Text(printable(title), style="dim"))
    for sign, parts, style in lines:
        pieces = [(printable(piece), style if is_marked else "") for piece, is_marked in parts]
        _stdout().print(Text.assemble((f"  {sign} ", style), *pieces, overflow="fold"))


def error_panel(err: LlmtuneError) -> None:
    """What is wrong, where, and what to do, on stderr."""
    title = err.title if err.title in ("Error", "Interrupted", "Diverged") else f"{err.title} error"
    if isinstance(err, ConfigError) and len(err.problems) > 1:
        title = f"{len(err.problems)} config errors"
        messages = [f"- {problem}" for problem in err.problems]
    else:
        messages = [err.message]
    labelled = [(label, text) for label, text in (("at", err.where), ("try", err.remedy)) if text]
    if not sys.stderr.isatty():
        body = "\n".join([*messages, *(f"{label}: {text}" for label, text in labelled)])
        print(printable(f"{title}:\n" + "\n".join(f"  {line}" for line in body.splitlines())), file=sys.stderr, flush=True)
        return
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    body = Table.grid(padding=(0, 1))
    body.add_column(overflow="fold")
    for message in messages:
        body.add_row(Text(printable(message)))
    for label, text in labelled:
        body.add_row(Text.assemble((f"{label}: ", "bold"), printable(text)))
    _stderr().print(Panel(body, title=title, title_align="left", border_style="red", padding=(0, 1)))


@cache
def _stderr():
    from rich.console import Console

    return Console(stderr=True, highlight=False)  # one for all: bars within bars must share it


@cache
def _stdout():
    from rich.console import Console

    return Console(highlight=False)
