"""The command line: the table of verbs, dispatch, and what each exception means to a shell. Standard library only.

Each verb's module has `run(args, options) -> int`: `args` are the overrides for Hydra, the words of `options` among them
already (`llmtune evaluate RUN` arrives as `run='RUN'`); what it returns is the exit code.
"""

import contextlib
import difflib
import os
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from llmtune import __version__, interrupts, startup
from llmtune.errors import DivergedError, Interrupted, LlmtuneError, UsageError


class Verb(NamedTuple):
    """One row of the table of verbs. `words`: the most words that may follow; `needed`: the fewest."""

    summary: str
    module: str
    usage: str
    needed: int = 0
    words: int = 0
    sweeps: bool = False


VERBS: dict[str, Verb] = {
    "run": Verb("everything in order: preprocess, train, evaluate, finetune, export", "run", "+recipe=NAME", sweeps=True),
    "inspect": Verb("look at the data: what is odd in it, and the override for each", "inspect", "+recipe=NAME"),
    "augment": Verb("show or write the train rows as augmenters change them", "augment", "+recipe=NAME augment=[...]"),
    "preprocess": Verb("read, split and tokenize the data, once", "preprocess", "+recipe=NAME", sweeps=True),
    "plan": Verb("the memory and time that training would take, measured on a few steps", "plan", "+recipe=NAME"),
    "train": Verb("train a model", "train", "+recipe=NAME", sweeps=True),
    "evaluate": Verb("score a run's model on its test rows or a file", "evaluate", "RUN", 1, 1),
    "finetune": Verb("train on from a run or a model directory", "finetune", "[RUN] [+recipe=NAME]", 0, 1, sweeps=True),
    "average": Verb(
        "a new run from the mean of several runs' weights, or of one's checkpoints", "average", "RUN [RUN ...]", 1, 99
    ),
    "export": Verb("write a run's model for others, checked against it", "export", "RUN", 1, 1),
    "predict": Verb("predict lines of a file or of standard input, to JSONL", "predict", "RUN [FILE]", 1, 2),
    "chat": Verb("talk with a model in the terminal", "chat", "RUN", 1, 1),
    "verify": Verb("check a run or an export against its manifests", "verify", "RUN", 1, 1),
    "list": Verb("recipes, groups, and the options of a group", "list", "[recipes|GROUP]", 0, 1),
    "show": Verb("the composed, checked config as YAML", "show", "[VERB [RUN]] [+recipe=NAME]", 0, 3),
    "schema": Verb("the JSON schema of a verb's config", "schema", "[VERB]", 0, 1),
    "completion": Verb("a script that completes llmtune's words in your shell", "completion", "bash|zsh|fish", 1, 1),
}

FLAGS = {
    "--help": "what a verb does, and every key it has",
    "--multirun": "(-m) one job for each combination of a=1,2,3",
    "--config-dir": "a folder of your own groups and options",
    "--preview": "(augment) show some rows before and after, and write nothing",
    "--debug": "show the traceback of an error",
    "--version": "the version",
}
_SHORT = {"-h": "--help", "-m": "--multirun"}
OF_VERB = {"--preview": ("augment", "preview=true")}  # flags that one verb alone has, and the override they stand for
_PRINTING = ("list", "show", "schema", "completion", "predict", "chat")  # their output is all they do


@dataclass(frozen=True)
class Options:
    """What stands on the command line besides overrides.

    Attributes:
        words: words without '=': the RUN of evaluate, export, chat and finetune, those of average, RUN and FILE of predict,
            what to list or show.
        multirun: -m.
        config_dir: folder of the user's own groups and options.
        debug: whether errors show their traceback.
    """

    words: tuple[str, ...] = ()
    multirun: bool = False
    config_dir: Path | None = None
    debug: bool = False


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit code. Never raises."""
    _open_standard_streams()
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BaseException as e:  # PanicException of tokenizers is no Exception
        if (code := interrupts.exit_code()) is not None:
            with contextlib.suppress(OSError):
                print(interrupts.line(), file=sys.stderr)
            return code
        if isinstance(e, SystemExit):
            return e.code if isinstance(e.code, int) else int(e.code is not None)
        return _report(e, argv)


def _dispatch(argv: list[str]) -> int:
    for arg in argv:
        if not arg.isprintable() and any("\ud800" <= char <= "\udfff" for char in arg):
            raise UsageError(f"the word {arg!r} is not UTF-8", remedy="set a UTF-8 locale, such as LC_ALL=C.UTF-8")
    if argv[:1] == ["--complete"]:
        from llmtune.completion import complete

        for candidate in complete(argv[1:]):
            print(candidate)
        return 0
    if not argv or argv[0] in ("--help", "-h"):
        print(_overview())
        return 0
    if "--version" in argv:
        print(f"llmtune {__version__}")
        return 0
    name = next((arg for arg in argv if arg != "--debug"), "--debug")
    if name not in VERBS:
        remedy = f"llmtune train {name}" if "=" in name else _nearest(name, VERBS) or "llmtune --help"
        raise UsageError(f"there is no verb '{name}'", remedy=remedy)
    rest = list(argv)
    rest.remove(name)
    if "--help" in rest or "-h" in rest:
        from llmtune.help import show_page

        show_page(name)
        return 0
    args, options = parse(name, rest)
    if options.multirun:
        return import_module("llmtune.commands.sweep").run(name, args, options)
    with startup.importing():
        module = import_module(f"llmtune.commands.{VERBS[name].module}")
    return module.run(args, options)


def parse(name: str, rest: list[str]) -> tuple[list[str], Options]:
    """Part flags, words and overrides. The overrides that the words stand for come first.

    Raises:
        UsageError: an unknown flag, too few or too many words.
    """
    verb, words, overrides = VERBS[name], [], []
    flags = {"--multirun": False, "--debug": False}
    config_dir = None
    remaining = iter(rest)
    for arg in remaining:
        flag = _SHORT.get(arg, arg)
        if flag in flags:
            flags[flag] = True
        elif flag in OF_VERB and OF_VERB[flag][0] == name:
            overrides.append(OF_VERB[flag][1])
        elif flag == "--config-dir" or flag.startswith("--config-dir="):
            config_dir = _folder(flag.partition("=")[2] or next(remaining, ""))
        elif arg.startswith("-") and arg != "-":
            raise UsageError(f"unknown flag '{arg}'", where=f"llmtune {name}", remedy=_flag_remedy(name, flag))
        elif "=" in arg or arg[:1] in ("+", "~"):
            overrides.append(arg)
        else:
            words.append(arg)
    if flags["--multirun"] and not verb.sweeps:
        sweeping = ", ".join(v for v in VERBS if VERBS[v].sweeps)
        raise UsageError(f"{name} has no --multirun", remedy=f"-m works with {sweeping}")
    for word in words[verb.words :]:
        raise UsageError(f"unexpected word '{word}'", where=f"llmtune {name}", remedy=_word_remedy(name, word))
    if len(words) < verb.needed or "" in words:
        raise UsageError(f"{name} needs {verb.usage}", remedy=f"llmtune {name} {verb.usage}, or llmtune {name} --help")
    options = Options(words=tuple(words), multirun=flags["--multirun"], config_dir=config_dir, debug=flags["--debug"])
    return word_overrides(name, words) + overrides, options


def word_overrides(name: str, words: list[str]) -> list[str]:
    """The overrides that a verb's words stand for, quoted for Hydra."""
    if name == "finetune" and words:
        return ["model=run", f"model.path={quote(words[0])}"]
    if name == "average" and words:
        return [f"runs=[{','.join(quote(word) for word in words)}]"]
    if name in ("evaluate", "export", "predict", "chat"):
        return [f"{key}={quote(word)}" for key, word in zip(("run", "file"), words, strict=False)]
    return []


def quote(text: str) -> str:
    """A text as a value in Hydra's override grammar: nothing in it is special any more."""
    text = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)  # backslashes count only before a quote
    return "'" + text.replace("${", "\\${") + "'"


def _folder(name: str) -> Path:
    if not name or not Path(name).is_dir():
        raise UsageError(f"--config-dir: '{name}' is no folder", remedy="--config-dir FOLDER")
    return Path(name)


def _nearest(word: str, known) -> str | None:
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else None


def _flag_remedy(name: str, flag: str) -> str:
    if flag in ("--cfg", "-c"):
        return f"llmtune show {name} prints the composed config"
    return _nearest(flag, FLAGS) or f"the flags are {', '.join(FLAGS)}; settings are written key=value"


def _word_remedy(name: str, word: str) -> str:
    if set(word) & set("[]{},()"):
        return "put quotes around an override with spaces: 'augment=[drop, swap]'"
    if name in ("run", "inspect", "preprocess", "augment", "plan", "train"):
        return f"settings are written key=value; a recipe is +recipe={word}"
    return f"llmtune {name} {VERBS[name].usage}; settings are written key=value"


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items())
    width = max(map(len, FLAGS))
    flags = "\n".join(f"  {name:{width}}  {summary}" for name, summary in FLAGS.items())
    return f"""llmtune {__version__}: from raw text to a tested export, with one command

usage: llmtune VERB [KEY=VALUE ...]

{verbs}

{flags}

examples:
  llmtune list                                      what there is
  llmtune train +recipe=bert_cls                    a recipe
  llmtune train +recipe=bert_cls optimizer.lr=3e-5  with another learning rate
  llmtune train --help                              every key of train

exit codes:
  0 ok  2 config  3 data  4 model or checkpoint  5 resource  6 diverged  75 time limit  130, 143 signals  1 a bug of ours"""


def _open_standard_streams() -> None:
    """Fill the places of closed standard streams, lest a file that is opened later takes their number and their output."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(fd)
        sys.stdin = sys.stdin or open(0)  # noqa: SIM115
        sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115


def _report(error: BaseException, argv: list[str]) -> int:
    import traceback

    from llmtune import console
    from llmtune.failures import as_llmtune_error

    if isinstance(error, BrokenPipeError) and (closed := [fd for fd in (1, 2) if _reader_is_gone(fd)]):
        devnull = os.open(os.devnull, os.O_WRONLY)  # else the interpreter's last flush fails again
        for fd in closed:
            os.dup2(devnull, fd)
        return 0 if {*argv} & {*_PRINTING, "--help", "-h", "--complete"} or not argv else 1
    known = as_llmtune_error(error)
    is_told_by_main = isinstance(known, DivergedError | Interrupted) and not console.is_main()  # all ranks raise these
    with contextlib.suppress(OSError):  # stderr may be full or closed: the exit code still tells
        if known is None or "--debug" in argv:
            traceback.print_exception(error)
        if not is_told_by_main:
            console.error_panel(known or _bug(error))
    return known.exit_code if known else 1


def _reader_is_gone(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _bug(error: BaseException) -> LlmtuneError:
    return LlmtuneError(
        f"This is a bug of llmtune, not a mistake of yours: {type(error).__name__}: {error}".rstrip(": "),
        remedy=f"report it with the traceback above, the command line, and the version ({__version__})",
    )
