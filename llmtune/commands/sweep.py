"""`-m`: one job for each point of a sweep, each in a fresh process, one after another, and a table of all at the end.

A job is the same command line alone, so its result is the same bit for bit. It tells its result through the file that
`LLMTUNE_RESULT_FILE` names: {"run_dir", "metric", "value", "higher_is_better", "metrics"}.
"""

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, interrupts
from llmtune.config import compose
from llmtune.files import new_folder, write_json

if TYPE_CHECKING:
    from llmtune.cli import Options

RESULT_FILE = "LLMTUNE_RESULT_FILE"
_PR_SET_PDEATHSIG = 1  # of Linux


@dataclass
class Job:
    """One point: its command line, and what became of it. `exit_code` is None while it has not ended."""

    number: int
    overrides: list[str]
    exit_code: int | None = None
    seconds: float | None = None
    result: dict[str, Any] = field(default_factory=dict)


def run(verb: str, args: list[str], options: "Options") -> int:
    points = compose.sweep_points(verb, args, config_dir=options.config_dir)
    first = compose.compose(verb, points[0], config_dir=options.config_dir)
    jobs = [Job(number, overrides) for number, overrides in enumerate(points)]
    directory = new_folder(Path(first.config.output_dir) / "sweeps", lambda folder: _write(folder, verb, args, jobs))
    command = command_of(verb, options)
    for job in launch(jobs, command=command, directory=directory):
        _write(directory, verb, args, jobs)
        if job.exit_code:
            console.notice(f"job {job.number} ended with exit code {job.exit_code}: {' '.join(job.overrides)}")
    _tell(jobs, directory)
    return next((job.exit_code for job in jobs if job.exit_code), 0)


def launch(jobs: list[Job], *, command: list[str], directory: Path) -> Iterator[Job]:
    """Run the jobs that have not ended, one after another; yields each when it has.

    A signal goes on to the job at work and ends the sweep; a job whose sweep is killed saves and ends, too.

    The place for another launcher: it has to fill in `exit_code`, `seconds` and `result` of each job, in any order.
    """
    received: list[int] = []
    forwarded: list[int] = []
    child: subprocess.Popen | None = None

    def forward(number: int, _frame: Any) -> None:
        received.append(number)
        if child is not None and child.poll() is None:
            child.send_signal(number)
            forwarded.append(number)

    previous = {number: signal.signal(number, forward) for number in interrupts.heard()}
    try:
        for job in [job for job in jobs if job.exit_code is None]:
            if received:
                if not any(ended.exit_code for ended in jobs):  # it came between two jobs
                    job.exit_code = interrupts.EXIT_CODES[signal.Signals(received[0])]
                    yield job
                return
            console.notice(f"[{job.number + 1}/{len(jobs)}] {' '.join(job.overrides)}")
            result_file, started = directory / f".result-{job.number}.json", time.monotonic()
            # a process group of its own: a ctrl-C of the terminal reaches the job once, through us
            child = subprocess.Popen(
                [*command, *job.overrides],
                stdin=subprocess.DEVNULL,
                env={**os.environ, RESULT_FILE: str(result_file.absolute())},
                process_group=0,
                preexec_fn=_end_with_parent,
            )
            if received and not forwarded:
                child.send_signal(received[0])
            code = child.wait()
            job.exit_code, job.seconds = code if code >= 0 else 128 - code, round(time.monotonic() - started, 3)
            job.result = _take(result_file)
            yield job
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if child is not None and child.poll() is None:
            child.kill()


def command_of(verb: str, options: "Options") -> list[str]:
    """A command line without its overrides, for a process of its own."""
    root = Path(__file__).resolve().parents[2]
    # -P: a file evaluate.py in the user's folder is no module of ours; a checkout that is not installed needs its folder
    unshadowed = [] if Path.cwd().resolve() == root else ["-P"]
    folder = [f"--config-dir={options.config_dir}"] if options.config_dir else []
    return [sys.executable, *unshadowed, "-m", "llmtune", verb, *folder, *(["--debug"] if options.debug else [])]


def _end_with_parent() -> None:
    """Ask the system for SIGTERM when the parent dies, lest a job goes on that nobody waits for and holds its run."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _take(result_file: Path) -> dict[str, Any]:
    try:
        result = json.loads(result_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # killed before or while it wrote
        return {}
    result_file.unlink()
    return result


def _write(directory: Path, verb: str, args: list[str], jobs: list[Job]) -> None:
    """sweep.json as it stands, replaced at once."""
    content = {"verb": verb, "args": args, "jobs": [asdict(job) for job in jobs]}
    write_json(directory / "sweep.json", finite(content))


def finite(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def best_first(jobs: list[Job]) -> list[Job]:
    """Finished jobs by their metric, those without a number after them, failed ones, and last those that never started."""

    def order(job: Job) -> tuple:
        value = job.result.get("value")
        has_value = isinstance(value, int | float) and math.isfinite(value)
        ranked = (-value if job.result.get("higher_is_better") else value) if has_value else 0.0
        return job.exit_code is None, bool(job.exit_code), not has_value, job.result.get("metric", ""), ranked, job.number

    return sorted(jobs, key=order)


def _tell(jobs: list[Job], directory: Path) -> None:
    common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    rows = []
    for job in best_first(jobs):
        value = job.result.get("value")
        metric = f"{job.result['metric']}={value:.4f}" if isinstance(value, int | float) else ""
        state = {None: "not started", 0: "ok"}.get(job.exit_code, f"exit code {job.exit_code}")
        differing = " ".join(text for text in job.overrides if text not in common)
        seconds = "" if job.seconds is None else f"{job.seconds:.1f} s"
        rows.append([str(job.number), differing, metric, state, seconds, job.result.get("run_dir", "")])
    console.jobs_table(f"sweep {directory}", ["job", "overrides", "result", "state", "time", "run"], rows)
