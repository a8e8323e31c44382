"""SIGKILL at random times: does every resume end as the run that nobody killed?

    python scripts/bench/kills.py RESULTS.jsonl [--trials 200] [--cases lstm-0 bert-2 ...]

Trials are appended to RESULTS.jsonl, and those that stand there already are not repeated. The processes that train are forked
from this one, which has imported torch and run no operator: a trial takes seconds. Prints a Markdown table.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_RUN = 120.0  # seconds, after which a child hangs
MOST_KILLS = 3  # of one trial; the last attempt is left alone
COMMON = [
    "data.train_file=rows.csv",
    "seed=7",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=24",
    "training.epochs=null",
    "training.max_steps=40",
    "training.batch_size=8",
    "training.gradient_accumulation_steps=2",
    "training.log_every=1",
    "training.save_every=5",
    "training.eval_every=10",
    "training.keep_checkpoints=2",
    "hardware.device=cpu",
    "hardware.num_threads=1",
]
SMALL = ["model.num_layers=1", "model.num_heads=2", "model.hidden_size=32", "model.dropout=0.1"]
MODELS = {
    "lstm": ["model=lstm", "model.embedding_size=16", "model.hidden_size=16", "augment=[drop,swap]"],
    "bert": ["model=bert", "task=masked_lm", "data.label_column=null", "augment=[drop]", *SMALL],
    "gpt": ["model=gpt", "task=causal_lm", "data.label_column=null", *SMALL],
}
CASES = [f"{model}-{workers}" for model in MODELS for workers in (0, 2)]


@dataclass(frozen=True)
class Outcome:
    """What a finished run is compared by: sha256 of weights and optimizer, and the loss of each step to the last bit."""

    weights: str
    optimizer: str
    losses: tuple[str, ...]
    evaluations: tuple[str, ...]


def overrides(case: str) -> list[str]:
    model, workers = case.split("-")
    return [*COMMON, *MODELS[model], f"hardware.num_workers={workers}"]


def write_rows(folder: Path) -> None:
    """Rows with two classes, of unlike length."""
    rng = random.Random(0)
    words = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me", "no") for b in ("ra", "si", "tu", "vo", "we")]
    lines = ["text,label"]
    for i in range(160):
        lines.append(f"{' '.join(rng.choices(words, k=rng.randint(3, 20)))},{'yes' if i % 2 else 'not'}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def load_modules() -> None:
    """Import in this process what the forked ones need. No operator may run: threads do not survive a fork."""
    import llmtune.commands.stage
    import llmtune.commands.train
    import llmtune.evaluation.metrics  # noqa: F401


def fork(args: list[str], folder: Path, log: Path, *, verb: str = "train", prepare: Callable[[], None] = lambda: None) -> int:
    """`llmtune train ARGS` in a child process, in which `prepare` is called before; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()  # its loader workers can be killed with it
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(fd, "wb", closefd=False), write_through=True) for fd in (1, 2))
        from llmtune.cli import main

        prepare()
        code = main([verb, *args])
        sys.stderr.flush()
    finally:
        os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """The exit code of a child; None if it has not ended by then."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def kill(child: int, number: int = signal.SIGKILL) -> None:
    """End a child and the loader workers that it leaves behind."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)
    os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def outcome(folder: Path) -> Outcome:
    """Of the one run below a folder; a trial never starts a second one."""
    (run,) = [path for path in folder.glob("runs/*/2*") if path.is_dir()]
    latest = run / "checkpoints" / "latest"
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Outcome(
        weights=hashlib.sha256((latest / "model.safetensors").read_bytes()).hexdigest(),
        optimizer=hashlib.sha256((latest / "optimizer.safetensors").read_bytes()).hexdigest(),
        losses=tuple(event["loss"].hex() for event in events if event["event"] == "step"),
        evaluations=tuple(json.dumps([e["step"], e["metrics"]]) for e in events if e["event"] == "evaluation"),
    )


def reference(case: str, folder: Path) -> tuple[Outcome, float]:
    """The run that nobody kills, and its seconds. A first one, of a single step, fills the cache of prepared rows."""
    seconds = 0.0
    for name, changes in (("warm", ["training.max_steps=1"]), ("whole", [])):
        (folder / name).mkdir()
        write_rows(folder / name)
        started = time.monotonic()
        code = wait(fork([*overrides(case), *changes], folder / name, folder / f"{name}.log"), LONGEST_RUN)
        if code != 0:
            raise RuntimeError(f"{case} ends with {code}:\n{(folder / f'{name}.log').read_text()[-3000:]}")
        seconds = time.monotonic() - started
    return outcome(folder / "whole"), seconds


def trial(case: str, number: int, expected: Outcome, seconds: float, folder: Path) -> dict[str, Any]:
    """Kill a run up to three times at random moments, let it end, and compare."""
    rng = random.Random(f"{case}/{number}")
    folder.mkdir()
    write_rows(folder)
    killed: list[float] = []
    code: int | None = None
    num_kills = rng.randint(1, MOST_KILLS)
    for attempt in range(num_kills + 1):
        if list(folder.glob("runs/*/2*/result.json")):  # the kill came after the end, and another command is another run
            code = 0
            break
        moment = rng.uniform(0.0, seconds) if attempt < num_kills else LONGEST_RUN
        child = fork(overrides(case), folder, folder / "log")
        code = wait(child, moment)
        if code is not None:
            break
        kill(child)
        killed.append(round(moment, 3))
    if code != 0:
        why = f"an attempt ends with {code}: {(folder / 'log').read_text(encoding='utf-8', errors='replace')[-300:]}"
        return {"case": case, "trial": number, "killed": killed, "ok": False, "why": why}
    try:
        found = outcome(folder)
    except (OSError, ValueError) as e:
        return {"case": case, "trial": number, "killed": killed, "ok": False, "why": repr(e)}
    differing = [
        name for name in ("weights", "optimizer", "losses", "evaluations") if getattr(found, name) != getattr(expected, name)
    ]
    return {"case": case, "trial": number, "killed": killed, "ok": not differing, "why": ", ".join(differing)}


def run_case(case: str, *, trials: range, results: Path) -> None:
    """Append the trials of a case that are not in the results yet."""
    done = {r["trial"] for r in read(results) if r["case"] == case}
    missing = [number for number in trials if number not in done]
    if not missing:
        return
    load_modules()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LLMTUNE_CACHE"] = str(folder / "cache")
        expected, seconds = reference(case, folder)
        for number in missing:
            result = trial(case, number, expected, seconds, folder / f"trial-{number}")
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--trials", type=int, default=200, help="of each case")
    parser.add_argument("--cases", nargs="*", default=CASES, choices=CASES)
    arguments = parser.parse_args()
    for case in arguments.cases:
        run_case(case, trials=range(arguments.trials), results=arguments.results)
    print("| model | loader workers | trials | kills | identical |\n|---|---|---|---|---|")
    found = [r for r in read(arguments.results) if r["case"] in arguments.cases]
    for case in arguments.cases:
        mine = [r for r in found if r["case"] == case]
        model, workers = case.split("-")
        kills = sum(len(r["killed"]) for r in mine)
        print(f"| {model} | {workers} | {len(mine)} | {kills} | {sum(r['ok'] for r in mine)} |")
    for result in found:
        if not result["ok"]:
            print(result, file=sys.stderr)
    return int(not all(r["ok"] for r in found))


if __name__ == "__main__":
    sys.exit(main())
