"""`llmtune chat RUN`: talk with a model in the terminal, or line by line through a pipe."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmtune import console, interrupts, startup
from llmtune.commands import sampling_keys
from llmtune.config.compose import compose
from llmtune.errors import DataError

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.generation.conversation import Reply, Talk

HELP = """\
/reset         forget what was said
/system TEXT   begin anew with this system message
/save FILE     add the conversation to a file of JSON lines
/quit          leave, as ctrl-D does
ctrl-C         stop the answer; twice: leave"""


def run(args: list[str], options: "Options") -> int:
    config = compose("chat", args, config_dir=options.config_dir).config
    sampling_keys.refuse_idle(args, temperature=config.temperature)
    with startup.importing():
        from llmtune.commands import writing
        from llmtune.generation.conversation import Continuation, Conversation
        from llmtune.generation.prompts import prompts_for
        from llmtune.training import precision
        from llmtune.training.restore import restore

    precision.set_up(config.hardware, exact=True)
    restored = restore(config.run, which=config.checkpoint)
    prompts = prompts_for(restored, converses=True)
    writer, compute = writing.writer_of(restored, prompts, hardware=config.hardware, how=config.sampling(), one_by_one=True)
    if prompts.chat is not None:
        talk = Conversation(writer, prompts, system=config.system, max_new_tokens=config.max_new_tokens)
        how = "answers by its chat template"
    elif config.system is not None:
        raise DataError("the model has no chat template, and so no place for a system message", remedy="leave out system=")
    else:
        talk = Continuation(writer, prompts)
        how = "has no chat template: it was not trained to answer, and continues what you write"
    window = "any number of" if prompts.window is None else f"{prompts.window:,}"
    console.notice(f"{config.run} {how}; it reads {window} tokens, in {compute.precision}; /help tells more")
    for line in _lines():
        if line.startswith("/"):
            if not _obey(line, talk):
                break
        elif line.strip():
            _answer(line, talk)
    return 0


def _answer(line: str, talk: "Talk") -> None:
    if sys.stdout.isatty() and not sys.stdin.isatty():
        print(f"> {console.printable(line)}")
    try:
        with _stoppable() as heard:
            reply = talk.say(line, show=_show, is_stopping=lambda: bool(heard))
    except DataError as e:
        if not sys.stdin.isatty():
            raise
        console.notice(f"({e.message}; {e.remedy})")
        return
    print(flush=True)
    for told in _told(reply):
        console.notice(f"({told})")


def _show(piece: str) -> None:
    print(console.printable(piece) if sys.stdout.isatty() else piece, end="", flush=True)


def _told(reply: "Reply") -> Iterator[str]:
    if reply.num_forgotten:
        yield f"the oldest {reply.num_forgotten} turns no longer fit the window, and were not read"
    match reply.answer.finish_reason:
        case "length":
            yield "cut at max_new_tokens"
        case "window":
            yield "the window is full: /reset begins anew"
        case "interrupted":
            yield "stopped"


def _obey(line: str, talk: "Talk") -> bool:
    """Do what a command says; False: leave."""
    from llmtune.generation.conversation import Conversation, save

    command, _, rest = line.strip().partition(" ")
    match command, rest.strip():
        case "/quit", "":
            return False
        case "/reset", "":
            talk.reset()
            console.notice("(a new conversation)")
        case "/system", text if text and isinstance(talk, Conversation):
            talk.reset(system=text)
            console.notice("(a new conversation, with this system message)")
        case "/save", name if name:
            try:
                save(Path(name), talk)
                console.notice(f"(added to {name})")
            except OSError as e:
                console.notice(f"(not saved: {e.strerror}: {name})")
        case _:
            console.notice(HELP if line.strip() == "/help" else f"(there is no command {line.strip()[:40]}; /help tells)")
    return True


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """While entered, ctrl-C in a terminal is noted in what this yields; the second one ends the process."""
    heard: list[int] = []

    def note(number: int, frame: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            interrupts.leave(number)

    if not sys.stdin.isatty():
        yield heard
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)


def _lines() -> Iterator[str]:
    """What is said, until the input ends."""
    if not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        try:
            yield from (line.rstrip("\r\n") for line in sys.stdin)
        except UnicodeDecodeError as e:
            raise DataError(f"standard input is no UTF-8 text: {e.reason}", remedy="iconv -f OLD -t UTF-8") from None
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  lines can be edited, and come back
    signal.signal(signal.SIGINT, signal.default_int_handler)  # leaves the line that is typed
    while (line := _typed()) is not None:
        yield line


def _typed() -> str | None:
    """One line; None: the user leaves."""
    for told in ("\n(ctrl-C again leaves, as ctrl-D does)", ""):
        try:
            return input("> " if sys.stdout.isatty() else "")
        except EOFError:
            break
        except KeyboardInterrupt:
            if told:
                console.notice(told)
    print()
    return None
