"""The process of `llmtune` and of `python -m llmtune`."""

import os
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a ctrl-C during the imports shows no traceback

from llmtune import cli, interrupts, startup


def main() -> int:
    with interrupts.heeded():
        code = cli.main()
        startup.end_now_if_in_vain(code)
        return code


if __name__ == "__main__":
    sys.exit(main())
