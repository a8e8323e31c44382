"""The loop over the points of a sweep, with a small script in the place of llmtune."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from llmtune.commands.sweep import Job, best_first, launch

ROOT = Path(__file__).resolve().parents[2]

# Tells its own process id as metric; 'fail' and 'nan' do what they say; 'wait' waits for a signal and ends as llmtune would.
SCRIPT = """
import json, os, signal, sys, time
word = sys.argv[1]
if word == "wait":
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    open(sys.argv[2], "w").close()
    time.sleep(30)
if word == "fail":
    sys.exit(3)
if word == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
value = float("nan") if word == "nan" else float(word)
result = {"run_dir": "runs/" + word, "metric": "accuracy", "value": value, "higher_is_better": True}
result["metrics"] = {"pid": os.getpid()}
json.dump(result, open(os.environ["LLMTUNE_RESULT_FILE"], "w"))
"""


def jobs_of(*words: str) -> list[Job]:
    return [Job(number, [word]) for number, word in enumerate(words)]


def test_each_job_has_its_own_process_and_the_others_go_on(tmp_path: Path, capfd):
    jobs = jobs_of("0.5", "fail", "nan", "kill", "0.9")
    ended = [job.number for job in launch(jobs, command=[sys.executable, "-c", SCRIPT], directory=tmp_path)]
    assert ended == [0, 1, 2, 3, 4]
    assert [job.exit_code for job in jobs] == [0, 3, 0, 137, 0]
    assert len({job.result["metrics"]["pid"] for job in jobs if job.result} | {os.getpid()}) == 4
    assert [job.number for job in best_first(jobs)] == [4, 0, 2, 1, 3]
    assert list(tmp_path.iterdir()) == []
    assert "[2/5] fail" in capfd.readouterr().err


def test_lower_may_be_better():
    jobs = jobs_of("a", "b", "c")
    for job, value in zip(jobs, (0.3, 0.1, 0.2), strict=True):
        job.exit_code, job.result = 0, {"metric": "loss", "value": value, "higher_is_better": False}
    assert [job.number for job in best_first(jobs)] == [1, 2, 0]


def test_a_signal_goes_to_the_job_once_and_ends_the_sweep(tmp_path: Path):
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        started = tmp_path / f"started-{code}"
        parent = f"""
import json, sys
from pathlib import Path
from llmtune.commands.sweep import Job, launch
jobs = [Job(0, ["wait", {str(started)!r}]), Job(1, ["0.5"])]
ended = list(launch(jobs, command=[sys.executable, "-c", {SCRIPT!r}], directory=Path({str(tmp_path)!r})))
print(json.dumps([job.exit_code for job in jobs]))
"""
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(parent)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        deadline = time.monotonic() + 30
        while not started.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
        assert json.loads(out) == [code, None]


def test_sweep_of_real_commands(command, tmp_path: Path):
    """Missing data: every job fails by itself, the table says so, sweep.json holds all, and the first code counts."""
    outcome = command(
        "preprocess", "-m", "data.train_file=none.csv", "seed=0,1", env={"LLMTUNE_CACHE": str(tmp_path / "cache")}
    )
    assert outcome.code == 3, outcome.err
    assert outcome.err.count("exit code 3: ") == 2 and outcome.out.count("exit code 3") == 2
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    saved = json.loads((sweep / "sweep.json").read_text())
    assert [job["overrides"] for job in saved["jobs"]] == [["data.train_file=none.csv", f"seed={seed}"] for seed in (0, 1)]
    assert [job["exit_code"] for job in saved["jobs"]] == [3, 3]


def test_a_bad_point_stops_the_sweep_before_the_first(command, tmp_path: Path):
    outcome = command("train", "-m", "data.train_file=x.csv", "optimizer.lr=0.1,-1")
    assert outcome.code == 2 and "optimizer.lr" in outcome.err and "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []
