"""What the comparisons with other tools share: environments, processes that take turns, clocks, memory, the table.

Every side of a comparison is a function of a script in this folder. `call` runs it in a process of its own, with the Python
of its own environment, and returns what it returns. This module imports the standard library alone, since every environment
imports it.
"""

import argparse
import contextlib
import csv
import hashlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

EVERY_MEMORY = 0.2  # seconds between two readings
# argv: folder of the scripts, module, function, its arguments as JSON, file for the answer.
START = """
import importlib, json, pathlib, sys
folder, module, name, arguments, answer = sys.argv[1:]
sys.path.insert(0, folder)
result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
pathlib.Path(answer).write_text(json.dumps(result))
"""

Result = dict[str, Any]


def parser(doc: str, *, rounds: int = 3, overrides: bool = False) -> argparse.ArgumentParser:
    """With the arguments that all scripts have, and `--overrides` where wanted."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="of all sides, one after the other")
    made.add_argument("--threads", type=int, help="of torch and TensorFlow on all sides; else one a core")
    if overrides:
        made.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE", help="more of llmtune's config")
    return made


def environment(cache: Path, name: str, packages: Sequence[str], *, alone: Sequence[str] = ()) -> Path:
    """The Python of an environment below `cache` with pinned packages; it is made where it is missing.

    A pinned torch is installed first and alone: as a dependency of others, pip would choose its CUDA build.

    Args:
        cache: folder of environments.
        name: of this one.
        packages: with their versions.
        alone: packages that are wanted for their files, without what they depend on.
    """
    folder = cache.resolve() / name
    stamp = folder / f"installed-{hashlib.sha256(' '.join([*packages, *alone]).encode()).hexdigest()[:16]}"
    if not stamp.is_file():
        print(f"environment {folder}: installing {', '.join([*packages, *alone])}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        for wanted in ([p for p in packages if p.startswith("torch==")], packages, ["--no-deps", *alone] if alone else []):
            if wanted:
                subprocess.run([*pip, *wanted], check=True)
        stamp.touch()
    return folder / "bin" / "python"


@contextlib.contextmanager
def work_folder(threads: int | None) -> Iterator[Path]:
    """A folder that goes away, with llmtune's cache in it; every process started from here works offline."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # of a container; a user's modules are compiled once
    if threads:
        os.environ |= {"OMP_NUM_THREADS": str(threads), "TF_NUM_INTRAOP_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLMTUNE_CACHE"] = str(Path(name) / "cache")
        yield Path(name)


def call(function: Callable[..., Any], *, python: Path | str = sys.executable, watch: bool = False, **arguments: Any) -> Result:
    """What a function returns in a new process, which ends with it.

    Args:
        function: of a script in this folder, by name; it returns a mapping fit for JSON.
        python: of the environment that it needs.
        watch: whether the memory of the process and its children is read meanwhile.
        arguments: fit for JSON.

    Returns:
        With `seconds` of the whole process, and `memory` in bytes, the highest, where it was watched.
    """
    script = Path(inspect.getfile(function)).resolve()
    with tempfile.TemporaryDirectory() as name:
        answer, log = Path(name) / "answer.json", Path(name) / "log"
        words = [str(script.parent), script.stem, function.__name__, json.dumps(arguments, default=str), str(answer)]
        started, memory = time.monotonic(), 0
        with log.open("wb") as output:
            process = subprocess.Popen([str(python), "-c", START, *words], cwd=name, stdout=output, stderr=subprocess.STDOUT)
            while watch and process.poll() is None:
                memory = max(memory, tree_memory(process.pid))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(EVERY_MEMORY)
            code = process.wait()
        seconds = time.monotonic() - started
        if code or not answer.is_file():
            sys.exit(f"{script.stem}.{function.__name__} ends with {code}:\n{log.read_text(errors='replace')[-4000:]}")
        return {**json.loads(answer.read_text()), "seconds": seconds, **({"memory": memory} if watch else {})}


def tree_memory(pid: int) -> int:
    """Resident bytes of a process, and what its children do not share with others; the process alone: its peak so far."""
    children = [child for child in descendants(pid) if child != pid]
    if not children:
        return status(pid, "VmHWM")
    return status(pid, "VmRSS") + sum(private(child) for child in children)


def descendants(pid: int) -> list[int]:
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    return found


def status(pid: int, name: str) -> int:
    """A size of /proc/PID/status in bytes; 0 of a process that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def private(pid: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024
    return 0


class Clock:
    """Notes the end of each training step, the same way on every side."""

    def __init__(self):
        self.steps: list[dict[str, float]] = []

    def tick(self, **counts: float) -> None:
        """A step has ended that took so many `tokens` (without padding) or `examples`; `loss`, where it is known."""
        self.steps.append({"time": time.perf_counter(), **counts})


def rate(steps: list[dict[str, float]], unit: str, *, skip: int = 1) -> float:
    """Tokens or examples a second from the end of step `skip`, before which compilers and caches warm up, to the last."""
    if len(steps) <= skip:
        sys.exit(f"{len(steps)} steps are too few: the first {skip} do not count")
    return sum(s[unit] for s in steps[skip:]) / (steps[-1]["time"] - steps[skip - 1]["time"])


def llmtune(words: list[str], folder: str) -> Result:
    """To be called: `llmtune run` without exports, the end of each step noted; its steps and test metrics."""
    from llmtune.cli import main
    from llmtune.training.trainer import Trainer

    clock, after_step = Clock(), Trainer._after_step

    def noted(trainer: Any, result: Any, *args: Any) -> Any:
        clock.tick(tokens=result.num_tokens, examples=result.num_examples, loss=result.loss)
        return after_step(trainer, result, *args)

    Trainer._after_step = noted
    told = Path(tempfile.mkdtemp(dir=folder))
    os.environ["LLMTUNE_RESULT_FILE"] = str(told / "result.json")
    if code := main(["run", *words, "export=none", "training.resume=never", f"output_dir={told}"]):
        sys.exit(code)
    run = Path(json.loads((told / "result.json").read_text())["run_dir"])
    tested = run / "evaluation" / "test" / "metrics.json"
    metrics = json.loads(tested.read_text()) if tested.is_file() else {}
    return {"steps": clock.steps, "metrics": metrics, "run": str(run)}


def in_turns(sides: dict[str, Callable[[int], Result]], rounds: int) -> dict[str, list[Result]]:
    """A B C A B C ...: what each side, given the number of the round, returns."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            started = time.monotonic()
            results[name].append(run(number))
            print(f"round {number + 1}, {name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return results


def require_same_work(results: dict[str, list[Result]], name: str) -> None:
    """Exit if not all sides have worked on the same amount in every round."""
    amounts = {side: {result[name] for result in mine} for side, mine in results.items()}
    if len(set().union(*amounts.values())) > 1:
        sys.exit(f"the sides have not done the same work: {name} {amounts}")


def median(results: list[Result], name: str) -> float:
    return statistics.median(result[name] for result in results)


def spread(results: list[Result], name: str, form: str) -> str:
    """The median, and the smallest and largest in brackets where there are several."""
    values = [result[name] for result in results]
    ends = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{statistics.median(values):{form}}{ends}"


def compare(results: dict[str, list[Result]], columns: dict[str, tuple[str, str]], *, by: str, smaller: bool = False) -> None:
    """Print a table with a row for each side, the first of them llmtune's, and how it does beside the best of the others.

    Args:
        results: of each side.
        columns: heading -> (name of a result, format).
        by: name of the result whose medians are compared.
        smaller: whether less of it is better.
    """
    ours, *others = results
    peers = [name for name in others if not name.startswith(ours)]  # or it is llmtune with another setting
    best = (min if smaller else max)(peers, key=lambda name: median(results[name], by))
    rows = []
    for name, mine in results.items():
        ratio = median(results[ours], by) / median(mine, by)
        cells = [spread(mine, key, form) for key, form in columns.values()]
        rows.append([name, *cells, f"{1 / ratio if smaller else ratio:.2f}" + (" (best peer)" if name == best else "")])
    print_table(["side", *columns, f"{ours} is better by"], rows)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def head_of_csv(source: Path, target: Path, num_rows: int | None) -> Path:
    """A copy of the first rows of a CSV file with a header line."""
    with source.open(encoding="utf-8", newline="") as file, target.open("w", encoding="utf-8", newline="") as written:
        csv.writer(written).writerows(islice(csv.reader(file), None if num_rows is None else num_rows + 1))
    return target
