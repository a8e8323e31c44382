"""SIGKILL at random moments: every resume ends as the run that nobody killed, bit for bit (scripts/bench/kills.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HARNESS = ROOT / "scripts" / "bench" / "kills.py"


def run(results: Path, *args: str) -> list[dict]:
    done = subprocess.run([sys.executable, str(HARNESS), str(results), *args], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_a_sample(tmp_path):
    results = tmp_path / "results.jsonl"
    trials = run(results, "--trials", "2")
    assert len(trials) == 12 and sum(len(trial["killed"]) for trial in trials) >= 6
    assert run(results, "--trials", "2", "--cases", "lstm-0") == trials, "trials that are done are not repeated"


@pytest.mark.slow
def test_many(tmp_path):
    trials = run(tmp_path / "results.jsonl", "--trials", "50")
    assert len(trials) == 300
