"""Signals outside of training: the process cleans up and ends with the signal's own exit code, in one plain line.

Training has its own answer (`training/signals.py`), and so have sweeps.
"""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGUSR1: 75}
GRACE = 4.0  # seconds to clean up in; a library that does not return to Python is not waited for any longer

_received: list[int] = []


class Stopped(SystemExit):
    """Raised wherever the main thread is when a signal comes; should it get past everyone, Python ends without a word."""


@contextmanager
def heeded() -> Iterator[None]:
    """While entered, the first signal of `EXIT_CODES` raises `Stopped`, and a second SIGINT ends the process at once.

    For a process of its own: afterwards, while Python shuts down, each signal ends it at once.
    """
    numbers = heard()
    reader, writer = _pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    sys.unraisablehook = _tell_unraisable
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a child's signals are not ours
    for number in numbers:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, leave)


def heard() -> list[int]:
    """The signals of `EXIT_CODES`, but for those that this process was started to ignore: nohup stays nohup."""
    return [number for number in EXIT_CODES if signal.getsignal(number) != signal.SIG_IGN]


def _pipe() -> tuple[int, int]:
    """A pipe beside the standard streams, even where some of these were closed from the start."""
    low = os.pipe()
    reader, writer = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in low)
    for end in low:
        os.close(end)
    return reader, writer


def exit_code() -> int | None:
    """The code of the signal that came, if one did."""
    return EXIT_CODES[signal.Signals(_received[0])] if _received else None


def line() -> str:
    """What to say of it."""
    return "interrupted" if _received[0] == signal.SIGINT else f"stopped by {signal.Signals(_received[0]).name}"


def leave(number: int, frame: FrameType | None = None) -> None:
    """End the process at once."""
    os._exit(EXIT_CODES[signal.Signals(number)])


def _stop(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if len(_received) == 1:
        if not _is_importing(frame):
            raise Stopped(exit_code())
        with suppress(OSError):  # stderr may be closed
            os.write(2, f"{line()}\n".encode())
        leave(number)
    if number == signal.SIGINT:
        leave(number)


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being made: compiled ones abort on an exception, and there is little to clean up."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _watch(reader: int) -> None:
    """End the process where the main thread is in a long call, or where somebody has swallowed `Stopped`."""
    while came := os.read(reader, 1):
        if signal.getsignal(came[0]) is _stop:
            time.sleep(GRACE)
            leave(came[0])


def _tell_unraisable(unraisable) -> None:
    """Where an exception leads nowhere, as in a destructor, Python prints it; not this one."""
    if unraisable.exc_type is not Stopped:
        sys.__unraisablehook__(unraisable)
