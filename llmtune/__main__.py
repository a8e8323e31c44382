"""The process of `llmtune` and of `python -m llmtune`."""

import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a ctrl-C during the imports shows no traceback

from llmtune import cli, interrupts


def main() -> int:
    with interrupts.heeded():
        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
