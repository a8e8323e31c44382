"""What each augmenter does on little data: 500 rows of SST-2 and of Banking77, LSTM and MiniLM, three seeds.

    python scripts/bench/augment_study.py DATA WEIGHTS RESULTS.jsonl [--jobs lstm_sst2 ...] [--methods none swap ...]

DATA holds sst2/{train,test}.csv and banking77/{train,test}.csv, WEIGHTS is the folder of MiniLM. For each seed, 500 train rows
are drawn with the classes' shares; they, the number of steps and all else are the same for all methods, which run as their
option files set them. Scored are the test rows (SST-2: all 1,821; Banking77: 1,540, twenty of each class) after the last step;
there are no validation rows. Runs are appended to RESULTS.jsonl, and those that stand there are not repeated. Two run at a
time, on one thread each, forked from this process, which has imported torch. Prints Markdown tables: mean accuracy, standard
deviation over the seeds, and the mean difference to no augmentation of the same seed.
"""

import argparse
import csv
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import kills

TRAIN_ROWS = 500
TEST_ROWS_PER_CLASS = 20  # of Banking77
AT_ONCE = 2
ALONE = [
    "synonyms",
    "insert",
    "swap",
    "drop",
    "characters",
    "keyboard",
    "punctuation",
    "cutoff",
    "mask",
    "mixup",
    "word_mixup",
    "fgm",
]
METHODS = {"none": "none", **{name: name for name in ALONE}, "EDA": "[synonyms,insert,swap,drop]"}
MODELS = {
    "lstm": ["model=lstm", "optimizer.lr=2e-3"],
    "minilm": ["model=bert", "model.pretrained={weights}", "optimizer.lr=2e-4"],
}
EPOCHS = {"lstm_sst2": 30, "lstm_banking77": 30, "minilm_sst2": 3, "minilm_banking77": 6}
DATA = {"sst2": ("text", "label"), "banking77": ("text", "category")}


@dataclass(frozen=True)
class Job:
    """One run."""

    model: str
    data: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.model}_{self.data}"

    def words(self, rows: Path, weights: Path) -> list[str]:
        text, label = DATA[self.data]
        return [
            *(word.format(weights=weights) for word in MODELS[self.model]),
            f"training.epochs={EPOCHS[self.name]}",
            f"augment={METHODS[self.method]}",
            f"data.train_file={rows / f'{self.data}-{self.seed}.csv'}",
            f"data.test_file={rows / f'{self.data}-test.csv'}",
            f"data.text_column={text}",
            f"data.label_column={label}",
            "split.validation_fraction=0",
            "tokenizer.max_length=64",
            "training.batch_size=16",
            "training.resume=never",
            "schedule.warmup_ratio=0.1",
            "hardware.device=cpu",
            "hardware.num_threads=1",
            "export=none",
            "run_name=study",
            f"seed={self.seed}",
        ]


def write_rows(data: Path, rows: Path, seeds: list[int]) -> None:
    """The train rows of every seed, and the test rows."""
    for name, (text, label) in DATA.items():
        train, test = (_read(data / name / f"{part}.csv") for part in ("train", "test"))
        for seed in seeds:
            _write(rows / f"{name}-{seed}.csv", [text, label], _drawn(train, label, TRAIN_ROWS, random.Random(seed)))
        if name == "banking77":
            num_classes = len({row[label] for row in test})
            test = _drawn(test, label, TEST_ROWS_PER_CLASS * num_classes, random.Random(0))
        _write(rows / f"{name}-test.csv", [text, label], test)


def _drawn(rows: list[dict], label: str, number: int, rng: random.Random) -> list[dict]:
    """Rows of every class, as near to its share as whole rows allow."""
    by_class = defaultdict(list)
    for row in rows:
        by_class[row[label]].append(row)
    for group in by_class.values():
        rng.shuffle(group)
    ranked = sorted(
        (rank / len(group), name, i) for name, group in by_class.items() for i, rank in enumerate(range(len(group)))
    )
    return [by_class[name][i] for _, name, i in ranked[:number]]


def _read(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, names: list[str], rows: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def scores(jobs: list[Job], rows: Path, weights: Path) -> Iterator[tuple[Job, dict]]:
    """What came out of each job, two of which run at a time."""
    waiting, running = list(jobs), {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            job = waiting.pop(0)
            place = Path(tempfile.mkdtemp(dir=rows))
            child = kills.fork(job.words(rows, weights), place, place / "log", verb="run")
            running[child] = (job, place, time.monotonic())
        child, status = os.waitpid(-1, 0)
        job, place, started = running.pop(child)
        if status:
            sys.exit(f"{job}\n{(place / 'log').read_text()[-3000:]}")
        run = place / "runs" / "study" / "latest"
        accuracy = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["accuracy"]
        trained = json.loads((run / "result.json").read_text())
        yield job, {"accuracy": accuracy, "train_seconds": trained["train_seconds"], "seconds": time.monotonic() - started}


def table(results: list[dict], name: str, methods: list[str]) -> Iterator[str]:
    found = defaultdict(dict)
    for result in results:
        if f"{result['model']}_{result['data']}" == name:
            found[result["method"]][result["seed"]] = result["accuracy"]
    yield f"\n**{name}**\n\n| augment | accuracy | deviation | beside none | each seed |\n|---|---|---|---|---|"
    for method in methods:
        if by_seed := found.get(method):
            each = [by_seed[seed] for seed in sorted(by_seed)]
            spread = statistics.stdev(each) if len(each) > 1 else float("nan")
            pairs = [by_seed[seed] - found["none"][seed] for seed in by_seed if seed in found["none"]]
            beside = f"{statistics.mean(pairs):+.4f}" if pairs else ""
            shown = ", ".join(f"{score:.4f}" for score in each)
            yield f"| {method} | {statistics.mean(each):.4f} | {spread:.4f} | {beside} | {shown} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("results", type=Path)
    names = [f"{model}_{data}" for model in MODELS for data in DATA]
    parser.add_argument("--jobs", nargs="*", default=names, choices=names)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    results = [json.loads(line) for line in arguments.results.open()] if arguments.results.exists() else []
    done = {(r["model"], r["data"], r["method"], r["seed"]) for r in results}
    jobs = [
        Job(*name.split("_"), method, seed)
        for name in arguments.jobs
        for seed in arguments.seeds
        for method in arguments.methods
        if (*name.split("_"), method, seed) not in done
    ]
    kills.load_modules()
    import llmtune.commands.evaluate
    import llmtune.commands.run  # noqa: F401

    with tempfile.TemporaryDirectory() as folder, arguments.results.open("a") as file:
        write_rows(arguments.data, Path(folder), arguments.seeds)
        for job, result in scores(jobs, Path(folder), arguments.weights.resolve()):
            results.append({**vars(job), **result})
            print(json.dumps(results[-1]), file=file, flush=True)
            print(f"{job.name} {job.method} {job.seed}: {result}", file=sys.stderr)
    for name in arguments.jobs:
        print("\n".join(table(results, name, arguments.methods)))


if __name__ == "__main__":
    main()
