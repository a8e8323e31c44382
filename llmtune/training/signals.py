"""Signals ask the run to stop; it stops at the next micro-batch, saves, and exits with the signal's own code."""

import os
import signal
from types import FrameType

from llmtune.interrupts import EXIT_CODES, heard


class StopRequest:
    """While entered, SIGINT, SIGTERM, SIGHUP and SIGUSR1 set `exit_code` and end nothing; a second SIGINT ends the process."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in heard()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.exit_code is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is not None and number == signal.SIGINT:
            os._exit(130)
        self.exit_code = EXIT_CODES[signal.Signals(number)]
