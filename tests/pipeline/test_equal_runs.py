"""The same command gives the same weights: twice, in a sweep, with loader processes, and on two ranks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.nursery import Nursery
from tests.pipeline.conftest import SMALL, Folder, read_lines, sentences, sha256, step_losses, write_rows

COMMON = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", "training.epochs=2"]
MODELS = {
    "lstm": [*SMALL["lstm"], "augment=[synonyms,insert,drop,swap,characters,keyboard,casing,punctuation]"],
    "bert": [*SMALL["bert"], "task=masked_lm", "data.label_column=null"],
    "gpt": [*SMALL["gpt"], "task=causal_lm", "data.label_column=null", "tokenizer.max_length=16"],
}
ON_CPU = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]


def weights(run: Path) -> str:
    return sha256(run / "checkpoints" / "best" / "model.safetensors")


@pytest.mark.parametrize("name", MODELS)
def test_twice_the_same(reviews: Folder, nursery: Nursery, name: str):
    """Here, where other models were trained before; and in a process of its own."""
    args = ["train", *MODELS[name], *COMMON, *ON_CPU]
    reviews.ok(*args, "run_name=one")
    if name == "lstm":
        assert nursery.run("llmtune", *args, "run_name=two", folder=reviews.path).code == 0
    else:
        shutil.rmtree(reviews / "cache")
        reviews.ok(*args, "run_name=two")
    one, two = reviews.latest("one"), reviews.latest("two")
    assert weights(one) == weights(two) and step_losses(one) == step_losses(two)
    reviews.ok(*args, "run_name=three", "seed=1")
    assert weights(reviews.latest("three")) != weights(one)


@pytest.mark.parametrize("name", ["lstm", "bert"])
def test_loader_processes_change_nothing(reviews: Folder, name: str):
    args = ["train", *MODELS[name], *COMMON, *ON_CPU]
    reviews.ok(*args, "run_name=none")
    reviews.ok(*args, "run_name=two", "hardware.num_workers=2")
    assert weights(reviews.latest("none")) == weights(reviews.latest("two"))
    assert step_losses(reviews.latest("none")) == step_losses(reviews.latest("two"))


def on_two_ranks(folder: Folder, *args: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LLMTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-P",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "llmtune",
        *args,
    ]
    return subprocess.run(command, cwd=folder.path, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "args",
    [
        [*SMALL["lstm"], "model.dropout=0", "augment=[drop,swap]"],
        [
            *SMALL["bert"],
            "model.dropout=0",
            "task=masked_lm",
            "data.label_column=null",
            "training.gradient_accumulation_steps=3",
        ],
    ],
    ids=["lstm", "bert"],
)
def test_two_ranks_give_the_metrics_of_one(reviews: Folder, nursery: Nursery, args: list[str]):
    """161 train rows in steps of 32: the last window leaves a rank with little or nothing."""
    write_rows(reviews / "reviews.csv", sentences(201))
    args = [*args, *COMMON, *ON_CPU]
    reviews.ok("train", *args, "run_name=one")
    done = nursery.run("process", "run", *args, "run_name=two", folder=reviews.path, num_ranks=2)
    assert done.code == 0, done.told
    assert (reviews.latest("two") / "evaluation" / "test" / "metrics.json").is_file()
    assert (reviews.latest("two") / "export" / "parity.json").is_file()
    assert len(list((reviews / "runs" / "two").glob("20*"))) == 1
    one, two = ([e for e in read_lines(reviews.latest(n) / "metrics.jsonl")] for n in ("one", "two"))
    assert [(e["event"], e["step"]) for e in one] == [(e["event"], e["step"]) for e in two]
    for ours, theirs in zip(one, two, strict=True):
        if ours["event"] == "step":
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
            assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-3)
        else:
            assert theirs["metrics"] == pytest.approx(ours["metrics"], rel=1e-5)
    assert done.told.count("best checkpoint") == 1, "one rank alone tells the result"


def test_a_mistake_on_two_ranks_ends_both(reviews: Folder):
    done = on_two_ranks(reviews, "train", *SMALL["lstm"], "data.train_file=nowhere.csv", *ON_CPU)
    assert done.returncode != 0 and "nowhere.csv" in done.stderr and not (reviews / "runs").exists()
    assert done.stderr.count("Data error") == 1 and "bug of llmtune" not in done.stderr
