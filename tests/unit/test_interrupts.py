"""Signals in a process of its own: it cleans up, says a line, and ends with the signal's code, whatever it is doing."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 75}
BEGIN = """
    import os, signal, sys, time
    from pathlib import Path
    from llmtune import interrupts
    interrupts.GRACE = 1.0

    def hit(name, times=1):
        for _ in range(times):
            os.kill(os.getpid(), signal.Signals[name])
"""


class Done:
    def __init__(self, folder: Path, body: str, *, before: str = "", arg: str = ""):
        script = folder / "script.py"
        main = "with interrupts.heeded():\n" + textwrap.indent(textwrap.dedent(body), "    ")
        script.write_text(textwrap.dedent(BEGIN) + textwrap.dedent(before) + main, encoding="utf-8")
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-P", str(script), arg],
            cwd=folder,
            env={"PYTHONPATH": f"{ROOT}:{folder}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.code, self.out, self.err, self.seconds = done.returncode, done.stdout, done.stderr, time.monotonic() - began


@pytest.mark.parametrize("name", CODES)
def test_it_unwinds(tmp_path: Path, name: str):
    done = Done(tmp_path, f"try:\n    hit({name!r})\n    time.sleep(30)\nfinally:\n    print('cleaned up')")
    assert (done.code, done.out, done.err) == (CODES[name], "cleaned up\n", "") and done.seconds < 25


def test_a_command_says_a_line(tmp_path: Path):
    before = "from llmtune import cli\ncli._dispatch = lambda argv: hit('SIGTERM')\n"
    done = Done(tmp_path, "sys.exit(cli.main(['list']))", before=before)
    assert (done.code, done.out, done.err) == (143, "", "stopped by SIGTERM\n")


def test_what_a_library_makes_of_it_is_not_told(tmp_path: Path):
    before = """
        from llmtune import cli

        def dispatch(argv):
            try:
                hit("SIGINT")
            except BaseException as e:
                raise RuntimeError("wrapped") from e

        cli._dispatch = dispatch
    """
    done = Done(tmp_path, "sys.exit(cli.main(['list']))", before=before)
    assert (done.code, done.out, done.err) == (130, "", "interrupted\n")


def test_in_an_import_it_ends_at_once(tmp_path: Path):
    """A compiled module that gets an exception while it is made aborts: torch does."""
    (tmp_path / "slow.py").write_text("import __main__\n__main__.hit('SIGTERM')\nprint('went on')\n")
    done = Done(tmp_path, "try:\n    import slow\nfinally:\n    print('unwound')")
    assert (done.code, done.out, done.err) == (143, "", "stopped by SIGTERM\n")


def test_during_the_first_imports(tmp_path: Path):
    """Before any handler of ours is there, a ctrl-C would show where in its imports Python was."""
    script = """
        import os, runpy, signal, sys

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "llmtune.cli":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Finder())
        runpy.run_module("llmtune", run_name="__main__")
    """
    command = [sys.executable, "-P", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_long_call_is_not_waited_for(tmp_path: Path):
    """The signal comes while the main thread is in C, where no handler of Python runs."""
    body = """
        import hashlib, threading
        threading.Timer(0.3, hit, ["SIGTERM"]).start()
        hashlib.pbkdf2_hmac("sha256", b"x", b"x", 2_000_000_000)
    """
    done = Done(tmp_path, body)
    assert done.code == 143 and "Traceback" not in done.err and 1.0 < done.seconds < 25


def test_a_swallowed_exception_does_not_keep_it(tmp_path: Path):
    done = Done(tmp_path, "try:\n    hit('SIGHUP')\nexcept BaseException:\n    pass\ntime.sleep(30)")
    assert (done.code, done.err) == (129, "") and done.seconds < 25


def test_a_destructor_shows_no_traceback(tmp_path: Path):
    before = "class Held:\n    def __del__(self):\n        hit('SIGINT')\n"
    done = Done(tmp_path, "Held()\ntime.sleep(30)", before=before)
    assert (done.code, done.err) == (130, "") and done.seconds < 25


def test_a_destructor_s_other_errors_are_told(tmp_path: Path):
    before = "class Held:\n    def __del__(self):\n        raise ValueError('told')\n"
    assert "ValueError: told" in Done(tmp_path, "Held()", before=before).err


def test_a_second_interrupt_ends_it_at_once(tmp_path: Path):
    done = Done(tmp_path, "try:\n    hit('SIGINT')\nfinally:\n    hit('SIGINT')\n    print('went on', flush=True)")
    assert (done.code, done.out, done.err) == (130, "", "")


def test_another_signal_lets_it_clean_up(tmp_path: Path):
    done = Done(tmp_path, "try:\n    hit('SIGHUP')\nfinally:\n    hit('SIGTERM')\n    print('cleaned up')")
    assert (done.code, done.out, done.err) == (129, "cleaned up\n", "")


def test_while_python_shuts_down(tmp_path: Path):
    before = "import atexit\natexit.register(lambda: hit('SIGINT'))\n"
    done = Done(tmp_path, "print('done', flush=True)", before=before)
    assert (done.code, done.out, done.err) == (130, "done\n", "")


def test_nohup_stays_nohup(tmp_path: Path):
    done = Done(tmp_path, "hit('SIGHUP')\nprint('went on')", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    assert (done.code, done.out) == (0, "went on\n")


def test_other_handlers_are_respected(tmp_path: Path):
    """A run of training saves; it may take longer than the grace."""
    before = "heard = []\nsignal_of_ours = lambda number, frame: heard.append(number)\n"
    body = "signal.signal(signal.SIGTERM, signal_of_ours)\nhit('SIGTERM')\ntime.sleep(1.5)\nprint(len(heard))"
    done = Done(tmp_path, body, before=before)
    assert (done.code, done.out) == (0, "1\n")


def test_a_child_s_signals_are_its_own(tmp_path: Path):
    """A loader process that is told to end does not end the run."""
    body = """
        child = os.fork()
        if not child:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
            hit("SIGTERM")
            time.sleep(30)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        time.sleep(1.5)
        print("went on")
    """
    done = Done(tmp_path, body)
    assert (done.code, done.out, done.err) == (0, "went on\n", "")


def test_without_it_nothing_changes():
    """Within another process, such as this one, llmtune leaves signals alone."""
    from llmtune import cli

    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["--version"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before
