"""Runs a command line of llmtune that signals strike at exact moments.

    python struck.py FUNCTION NUMBER SIGNALS ... -- ARGS

Before the NUMBER-th call of FUNCTION (`module:name` or `module:Class.name`) the process sends itself SIGNALS, such as
SIGINT,SIGINT, and notes the time in the file struck-at. The function `end` is the moment after the command, while Python shuts
down.
"""

import itertools
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from llmtune.__main__ import main


def strike(signals: str) -> None:
    Path("struck-at").write_text(str(time.time()))
    for name in signals.split(","):
        os.kill(os.getpid(), signal.Signals[name])


def arrange(function: str, number: int, signals: str) -> None:
    module, _, path = function.partition(":")
    *owners, name = path.split(".")
    owner = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), itertools.count(1)

    def struck(*args, **kwargs):
        if next(calls) == number:
            strike(signals)
        return original(*args, **kwargs)

    setattr(owner, name, struck)


def run(plan: list[str], args: list[str]) -> int:
    blows = [plan[i : i + 3] for i in range(0, len(plan), 3)]
    for function, number, signals in blows:
        if function != "end":
            arrange(function, int(number), signals)
    sys.argv[1:] = args
    code = main()
    for function, _, signals in blows:
        if function == "end":
            strike(signals)
    return code


if __name__ == "__main__":
    cut = sys.argv.index("--")
    sys.exit(run(sys.argv[1:cut], sys.argv[cut + 1 :]))
