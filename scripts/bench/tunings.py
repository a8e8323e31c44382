"""What each way to open weights reaches: MiniLM on SST-2, three seeds.

    python scripts/bench/tunings.py DATA WEIGHTS RESULTS.jsonl [--methods full lora ...] [--seeds 0 1 2] [-- OVERRIDES]

DATA holds sst2/{train,dev,test}.csv, WEIGHTS is the folder of MiniLM. Three epochs of batch 32 on one thread in bfloat16; the
checkpoint that is best on the 872 dev rows is scored on the 1,821 test rows. OVERRIDES are for all methods, and named in
a result. Results are appended to RESULTS.jsonl, and those that stand there are not found again. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import kills

METHODS = {
    "full": ["tuning=full", "optimizer.lr=1e-4"],
    "r_drop": ["tuning=full", "optimizer.lr=1e-4", "objective=r_drop"],
    "layerwise": ["tuning=layerwise", "tuning.lr_decay=0.8", "optimizer.lr=2e-4", "objective=label_smoothing"],
    "gradual": ["tuning=gradual", "tuning.open_every=0.125", "optimizer.lr=1e-4"],
    "head": ["tuning=head", "optimizer.lr=5e-3"],
    "lora": ["tuning=lora", "tuning.rank=16", "tuning.alpha=32.0", "optimizer.lr=1e-3"],
    "rslora": ["tuning=rslora", "optimizer.lr=5e-4"],
    "dora": ["tuning=dora", "tuning.rank=16", "tuning.alpha=32.0", "optimizer.lr=1e-3"],
    "pissa": ["tuning=pissa", "tuning.rank=16", "tuning.alpha=16.0", "optimizer.lr=5e-4"],
    "ia3": ["tuning=ia3", "optimizer.lr=1e-2"],
    "prefix": ["tuning=prefix", "optimizer.lr=1e-2"],
    "prompt": ["tuning=prompt", "optimizer.lr=1e-2"],
}


def words(method: str, seed: int, *, data: Path, weights: Path, more: list[str]) -> list[str]:
    return [
        "model=bert",
        f"model.pretrained={weights}",
        *(f"data.{name}_file={data / 'sst2' / file}.csv" for name, file in SPLITS.items()),
        "tokenizer.max_length=64",
        "training.epochs=3",
        "training.batch_size=32",
        "training.resume=never",
        "training.eval_every=100",
        "schedule.warmup_ratio=0.1",
        "hardware.device=cpu",
        "hardware.num_threads=1",
        "export=none",
        "run_name=tunings",
        f"seed={seed}",
        *METHODS[method],
        *more,
    ]


SPLITS = {"train": "train", "validation": "dev", "test": "test"}


def scores(jobs: list[tuple[str, int]], how: dict) -> Iterator[dict]:
    """What came out of each run, one after the other, in processes forked from this one."""
    for method, seed in jobs:
        with tempfile.TemporaryDirectory() as folder:
            place, started = Path(folder), time.monotonic()
            child = kills.fork(words(method, seed, **how), place, place / "log", verb="run")
            if os.waitpid(child, 0)[1]:
                sys.exit(f"{method} {seed}\n{(place / 'log').read_text()[-3000:]}")
            run = place / "runs" / "tunings" / "latest"
            accuracy = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["accuracy"]
            trained = json.loads((run / "result.json").read_text())
            yield {
                "method": method,
                "seed": seed,
                "more": how["more"],
                "accuracy": accuracy,
                "validation": trained["value"],
                "learned": _learned(place / "log"),
                "train_seconds": trained["train_seconds"],
                "seconds": round(time.monotonic() - started, 1),
            }


def _learned(log: Path) -> int:
    """Weights that learned, as the table or the line before training tells them."""
    lines = log.read_text().splitlines()
    told = next(line.split() for line in lines if line.split()[:1] == ["together"] or "weights, all learn" in line)
    number = told[2] if told[0] == "together" else told[told.index("weights,") - 1]
    return int(number.replace(",", ""))


def table(results: list[dict]) -> Iterator[str]:
    found = defaultdict(list)
    for result in results:
        found[" ".join([result["method"], *result["more"]])].append(result)
    yield "| tuning | weights that learn | test accuracy | deviation | each seed | training, s |\n|---|---|---|---|---|---|"
    for name, some in found.items():
        each = [r["accuracy"] for r in sorted(some, key=lambda r: r["seed"])]
        spread = f"{statistics.stdev(each):.4f}" if len(each) > 1 else ""
        seconds, shown = statistics.median(r["train_seconds"] for r in some), ", ".join(f"{a:.4f}" for a in each)
        yield f"| {name} | {some[0]['learned']:,} | {statistics.mean(each):.4f} | {spread} | {shown} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, more = parser.parse_args(sys.argv[1:cut]), sys.argv[cut + 1 :]
    results = [json.loads(line) for line in arguments.results.open()] if arguments.results.exists() else []
    done = {(r["method"], r["seed"], *r["more"]) for r in results}
    jobs = [(m, s) for s in arguments.seeds for m in arguments.methods if (m, s, *more) not in done]
    kills.load_modules()
    import peft  # noqa: F401

    import llmtune.commands.evaluate
    import llmtune.commands.run  # noqa: F401

    how = {"data": arguments.data.resolve(), "weights": arguments.weights.resolve(), "more": more}
    with arguments.results.open("a") as file:
        for result in scores(jobs, how):
            results.append(result)
            print(json.dumps(result), file=file, flush=True)
            print(result, file=sys.stderr, flush=True)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
