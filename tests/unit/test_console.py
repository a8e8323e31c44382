"""Plain text where no terminal listens; boxes and bars on one."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from llmtune import console
from llmtune.errors import ConfigError, DataError

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(code: str, *, columns: int = 60) -> str:
    """What a script prints when stdout and stderr are a terminal."""
    ours, theirs = pty.openpty()
    env = {
        **os.environ,
        "COLUMNS": str(columns),
        "TERM": "xterm-256color",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    env.pop("NO_COLOR", None)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    output = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux reports the end so
            break
        if not chunk:
            break
        output += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0, output.decode()
    return output.decode()


def test_notice_spells_out_control_characters(capsys):
    console.notice("a [bold] \x1b[31mname\x07")
    assert capsys.readouterr().err == "a [bold] \\x1b[31mname\\x07\n"


def test_plain_progress_tells_the_end_and_the_live_text(capsys):
    with console.progress("Training", total=3, unit="steps") as advance:
        for step in range(3):
            advance(live=f"loss {step} [red]")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert re.fullmatch(r"Training: 3/3 steps, [\d.,e+]+/s in 0\.\d s \| loss 2 \[red\]", lines[0])


def test_plain_progress_speaks_at_most_every_ten_seconds(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("Training", total=100, unit="steps") as advance:
        for _ in range(100):
            now[0] += 0.25
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Training: 40/100 steps, 4/s, 15.0 s left",
        "Training: 80/100 steps, 4/s, 5.0 s left",
        "Training: 100/100 steps, 4/s in 25.0 s",
    ]


def test_a_short_step_inside_another_is_silent_and_a_failed_one_is_not(capsys):
    with pytest.raises(KeyError), console.progress("Training", total=None, unit="steps") as advance:
        with console.progress("Evaluating", total=1, unit="batches") as inner:
            inner()
        advance(2)
        raise KeyError
    assert re.fullmatch(r"Training: stopped at 2 steps, .*\n", capsys.readouterr().err)


def test_progress_without_a_single_step(capsys):
    with console.progress("Reading", total=0, unit="rows"):
        pass
    assert capsys.readouterr().err.startswith("Reading: 0/0 rows")


def test_plain_result_table_wraps_nothing(capsys):
    console.result_table("Result", [("accuracy", "0.91"), ("run", "/a/" + "x" * 200)])
    assert capsys.readouterr().out == f"Result\n  accuracy  0.91\n  run       /a/{'x' * 200}\n"


def test_plain_error_tells_where_and_what_to_do(capsys):
    console.error_panel(DataError("There is no column 'txt'.", where="a.csv:1", remedy="data.text_column=text"))
    assert capsys.readouterr().err == "Data error:\n  There is no column 'txt'.\n  at: a.csv:1\n  try: data.text_column=text\n"


def test_every_config_problem_is_told(capsys):
    console.error_panel(ConfigError(["a: wrong", "b: wrong", "a: wrong"]))
    assert capsys.readouterr().err == "2 config errors:\n  - a: wrong\n  - b: wrong\n"


def test_terminal_error_fits_a_narrow_window_and_keeps_markup():
    code = """
from llmtune import console
from llmtune.errors import DataError
console.error_panel(DataError("column [red] " + "word " * 40, remedy="x" * 70))
"""
    lines = [line.rstrip() for line in ANSI.sub("", on_a_terminal(code, columns=40)).splitlines()]
    assert max(map(len, lines)) <= 40
    assert "Data error" in lines[0]
    assert "column [red] word" in lines[1]
    assert "".join(line.strip("│ ") for line in lines).count("x" * 70) == 1


def test_terminal_bar_with_a_bar_inside_and_notices():
    code = """
from llmtune import console
with console.progress("Training", total=4, unit="steps") as advance:
    for step in range(4):
        advance(live=f"loss {step}")
        console.notice(f"notice {step}")
        with console.progress("Evaluating", total=2, unit="batches") as inner:
            inner(2)
print("done")
"""
    text = ANSI.sub("", on_a_terminal(code, columns=80))
    assert "4/4 steps" in text and "loss 3" in text and "notice 3" in text and text.rstrip().endswith("done")


def test_a_bar_on_the_terminal_leaves_piped_output_alone(tmp_path):
    result = tmp_path / "out.txt"
    code = f"""
import sys
sys.stdout = open({str(result)!r}, "w")
from llmtune import console
with console.progress("Predicting", total=1, unit="lines") as advance:
    print("a line of output")
    advance()
sys.stdout.flush()
"""
    on_a_terminal(code)
    assert result.read_text() == "a line of output\n"


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console._stderr.cache_clear()
    assert console._stderr().no_color
    console._stderr.cache_clear()


def test_stderr_may_be_no_real_file(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    console.notice("text")
    assert stream.getvalue() == "text\n"
