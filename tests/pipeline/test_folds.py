"""k-fold cross-validation by one command line: a run for each fold, their mean, and what is left after a kill."""

import json
import os
import statistics
import subprocess
import sys
import time
from itertools import count

import pytest

from llmtune.commands import folds
from llmtune.commands.sweep import Job
from llmtune.errors import ResourceError
from llmtune.training.run_dir import Lock
from tests.conftest import ROOT
from tests.faults.processes import wait_until
from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, write_rows

ON_CPU = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]
TRAIN = [*SMALL["lstm"], *ON_CPU, "data.train_file=rows.csv", "tokenizer.min_frequency=1", "run_name=a", "split=kfold"]


@pytest.fixture
def folded(folder: Folder, command):
    """`llmtune ARGS` as a process in a folder with rows.csv."""
    rows = sentences(90)
    for i, row in enumerate(rows):
        row["author"] = f"u{i // 2 % 15}"
    write_rows(folder / "rows.csv", rows)

    def run(*args: str):
        return command(*args, env={"LLMTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"})

    return run


def told(folder: Folder, name: str = "a") -> dict:
    (file,) = (folder / "runs" / name / "folds").glob("*/folds.json")
    return read(file)


def test_all_folds_and_their_mean(folded, folder: Folder):
    """By groups; the folds that `split.fold` names alone are the same."""
    args = [*TRAIN, "split.num_folds=2", "split.group_column=author", "training.epochs=1"]
    done = folded("train", *args)
    assert done.code == 0, done.err
    found = told(folder)
    values = [job["result"]["value"] for job in found["jobs"]]
    spread = found["summary"]["metrics"]["accuracy"]
    assert spread["mean"] == pytest.approx(statistics.mean(values)) and spread["std"] == pytest.approx(statistics.stdev(values))
    assert f"mean  {spread['mean']:.4f}" in done.out and f"std   {spread['std']:.4f}" in done.out
    runs = [folder / job["result"]["run_dir"] for job in found["jobs"]]
    assert len(set(runs)) == 2
    alone = folder("train", *args, "split.fold=2", "run_name=alone")
    assert alone.code == 0, alone.err
    losses = [
        [e["loss"] for e in read_lines(run / "metrics.jsonl") if e["event"] == "step"]
        for run in (runs[1], folder.latest("alone"))
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_a_killed_one_goes_on_with_what_is_left(folded, folder: Folder):
    args = [*TRAIN, "split.num_folds=2", "training.epochs=20", "training.batch_size=8", "training.save_every=5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LLMTUNE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "llmtune", "train", *args],
        cwd=folder.path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len([*(folder / "runs" / "a").glob("20*")]) == 2, process)
    wait_until(lambda: len([*(folder / "runs" / "a").glob("20*/checkpoints/step*")]) >= 3, process)
    process.kill()
    process.wait()
    second = sorted((folder / "runs" / "a").glob("20*"))[1]
    deadline = time.monotonic() + 60
    while is_locked(second):  # its fold saves and ends, too
        assert time.monotonic() < deadline
        time.sleep(0.05)
    before = told(folder)
    assert [job["exit_code"] for job in before["jobs"]] == [0, None]
    done = folded("train", *args, "training.resume=must")
    assert done.code == 0, done.err
    assert "fold 1 is done" in done.err and "resuming" in done.err
    assert told(folder)["jobs"][0] == {**before["jobs"][0], "overrides": told(folder)["jobs"][0]["overrides"]}
    assert len([*(folder / "runs" / "a").glob("20*")]) == 2
    assert folded("train", *args, "training.resume=must").code == 4


def is_locked(run) -> bool:
    try:
        with Lock(run):
            return False
    except ResourceError:
        return True


@pytest.mark.slow
def test_a_sweep_over_folds_goes_by_the_mean(folded, folder: Folder):
    done = folded("train", "-m", *TRAIN, "split.num_folds=2", "training.epochs=2", "optimizer.lr=1e-6,2e-2")
    assert done.code == 0, done.err
    (file,) = (folder / "runs" / "sweeps").glob("*/sweep.json")
    jobs = read(file)["jobs"]
    for job in jobs:
        summary = read(folder / job["result"]["run_dir"] / "folds.json")["summary"]
        assert job["result"]["value"] == summary["metrics"]["accuracy"]["mean"] and summary["folds"] == 2
    best, worst = sorted(jobs, key=lambda job: -job["result"]["value"])
    assert best["result"]["value"] > worst["result"]["value"]
    assert [line.split()[1] for line in done.out.splitlines()[-2:]] == [best["overrides"][-1], worst["overrides"][-1]]


@pytest.mark.slow
def test_run_scores_each_fold_on_the_same_test_rows(folded, folder: Folder):
    args = [*TRAIN, "split.num_folds=2", "split.test_fraction=0.2", "training.epochs=1", "export=none"]
    done = folded("run", *args)
    assert done.code == 0 and "test accuracy" in done.out, done.err
    found = told(folder)
    assert found["summary"]["test"]["accuracy"]["mean"] >= 0
    texts = [
        sorted(
            row["text"] for row in read_lines(folder / job["result"]["run_dir"] / "evaluation" / "test" / "predictions.jsonl")
        )
        for job in found["jobs"]
    ]
    assert texts[0] == texts[1] and len(texts[0]) == 18
    again = folded("run", *args)
    assert again.code == 0 and again.err.count("is done") == 2


@pytest.mark.slow
def test_a_fold_that_fails_leaves_the_others_alone(folded, folder: Folder):
    with (folder / "rows.csv").open("a") as file:
        file.write("a row of its own,rare,5,u99\n")
    done = folded("train", *TRAIN, "split.num_folds=2", "split.stratify=false", "training.epochs=1")
    codes = [job["exit_code"] for job in told(folder)["jobs"]]
    assert done.code == 3 and sorted(codes) == [0, 3], done.err
    assert "the label 'rare' does not occur in the train rows" in done.err and "of 1" in done.out


def test_only_what_is_left_is_done(folder: Folder, monkeypatch):
    """With jobs that do nothing: which folds are started, when a command is given again."""
    write_rows(folder / "rows.csv", sentences(20))
    started, failing, numbers = [], {2}, count(1)

    def launch(jobs, *, command, directory):
        for job in [job for job in jobs if job.exit_code is None]:
            started.append(job.number + 1)
            job.exit_code, job.seconds = (3 if job.number + 1 in failing else 0), 1.0
            run = folder / f"runs/a/run-{next(numbers)}"
            (run / "checkpoints" / "best").mkdir(parents=True)
            (run / "result.json").write_text("{}")
            facts = {"run_dir": str(run), "metric": "accuracy", "higher_is_better": True, "value": 0.5}
            job.result = {**facts, "metrics": {"accuracy": job.number / 10}} if not job.exit_code else {}
            yield job

    monkeypatch.setattr(folds, "launch", launch)
    train = ["train", *TRAIN, "split.num_folds=3"]

    def again(*args: str) -> tuple[int, list[int]]:
        started.clear()
        return folder(*args).code, [*started]

    assert folder(*train).code == 3 and started == [1, 2, 3]
    assert told(folder)["summary"]["metrics"]["accuracy"]["mean"] == pytest.approx(0.1)
    failing.clear()
    started.clear()
    done = folder(*train, "training.resume=must", "hardware.num_workers=1")
    assert done.code == 0 and started == [2], "what does not change a run does not begin another"
    assert "fold 1 is done" in done.err and done.out.splitlines()[-2].split() == ["mean", "0.1000", "of", "3"]
    assert [job["exit_code"] for job in told(folder)["jobs"]] == [0, 0, 0]
    assert again(*train, "training.resume=must") == (4, [])
    assert again(*train) == (0, [1, 2, 3])
    assert again(*train, "optimizer.lr=0.5") == (0, [1, 2, 3])
    assert again("run", *train[1:]) == (0, [1, 2, 3])
    assert again("run", *train[1:]) == (0, [])
    write_rows(folder / "rows.csv", sentences(22))
    assert again("run", *train[1:]) == (0, [1, 2, 3]), "other rows"


def test_several_ranks_are_refused(folder: Folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = folder("train", *TRAIN)
    assert done.code == 2 and "split.fold" in done.err and not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["split.fold=6"], "split.fold: there is no fold 6"),
        (["data.validation_file=x.csv"], "data.validation_file: split=kfold takes"),
        (["training.resume=runs/x"], "training.resume: names one run"),
        (["split.num_folds=1"], "split.num_folds: is 1; it must be at least 2"),
        (["split.validation_fraction=0.1"], "split.validation_fraction"),
        (["split=grouped"], "split.group_column: is not set"),
        (["split=time"], "split.time_column: is not set"),
    ],
)
def test_what_cannot_be_meant(folder: Folder, args, words):
    done = folder("train", *TRAIN, *args)
    assert done.code == 2 and words in done.err, done.err


def test_plan_wants_a_fold(folder: Folder):
    write_rows(folder / "rows.csv", sentences(40))
    done = folder("plan", *TRAIN)
    assert done.code == 2 and "split.fold: is null" in done.err, done.err


def test_means_leave_out_what_is_no_number():
    def job(number, code=0, **metrics):
        result = {"run_dir": "x", "metric": "accuracy", "value": 1, "higher_is_better": True, "metrics": metrics}
        return Job(number, [], code, 1.0, result if code == 0 else {})

    jobs = [job(0, accuracy=0.5, per_class=[1], r2=0.1), job(1, accuracy=0.7, per_class=[2], r2=float("nan")), job(2, code=3)]
    found = folds.summary(jobs)
    assert found["folds"] == 2 and set(found["metrics"]) == {"accuracy"}
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(0.6)
    assert found["metrics"]["accuracy"]["std"] == pytest.approx(0.02**0.5)
    assert folds.summary([job(0, accuracy=0.5)])["metrics"]["accuracy"] == {"mean": 0.5, "std": None}
    assert folds.summary([job(0, code=3)]) == {} and json.dumps(found)
