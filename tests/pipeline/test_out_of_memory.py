"""Memory that runs out costs smaller micro-batches, and neither a step nor the size of the batch."""

import numpy as np
import pytest
import torch

from llmtune.tasks.classification import ClassificationTask
from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sha256, step_losses

ARGS = [
    "train",
    *SMALL["lstm"],
    "model.dropout=0",
    "data.train_file=reviews.csv",
    "tokenizer.min_frequency=1",
    "training.log_every=1",
    "training.epochs=2",
    "training.batch_size=16",
    "training.save_every=3",
    "training.keep_checkpoints=9",
]
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch):
    """Let batches of more than `most` examples fail in training and in evaluation, from a number of calls on."""
    loss, score = ClassificationTask.loss, ClassificationTask.score
    calls = []

    def limit(most: int, *, error: BaseException = ERRORS[0], after: int = 0) -> None:
        def limited(method):
            def call(self, model, batch):
                calls.append(len(batch.example_ids))
                if len(batch.example_ids) > most and len(calls) > after:
                    raise error
                return method(self, model, batch)

            return call

        monkeypatch.setattr(ClassificationTask, "loss", limited(loss))
        monkeypatch.setattr(ClassificationTask, "score", limited(score))

    return limit


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_smaller_micro_batches_same_steps(reviews: Folder, room_for, error: BaseException):
    reviews.ok(*ARGS, "run_name=roomy")
    room_for(5, error=error, after=6)
    told = reviews.ok(*ARGS, "run_name=tight").err
    assert "step 7 does not fit into memory: from here on in 2 micro-batches" in told and "in 4 micro-batches" in told
    roomy, tight = reviews.latest("roomy"), reviews.latest("tight")
    ours, theirs = ([loss for _, loss in step_losses(run)] for run in (tight, roomy))
    assert len(ours) == len(theirs) and ours[:6] == theirs[:6] and ours == pytest.approx(theirs, rel=1e-5)
    metrics = [read(run / "result.json")["metrics"]["loss"] for run in (tight, roomy)]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-5)
    assert [e["micro_batches"] for e in read_lines(tight / "metrics.jsonl") if e["event"] == "out_of_memory"] == [2, 4]


def test_a_resumed_run_keeps_the_smaller_parts(reviews: Folder, room_for):
    room_for(5, after=6)
    reviews.ok(*ARGS, "run_name=whole")
    whole = reviews.latest("whole") / "checkpoints"
    expected = sha256(whole / "latest" / "model.safetensors")
    losses = step_losses(reviews.latest("whole"))
    (reviews.latest("whole") / "result.json").unlink()
    for step in (p for p in whole.glob("step-*") if int(p.name[5:]) > 12):
        for file in step.iterdir():
            file.unlink()
        step.rmdir()
    room_for(5)
    told = reviews.ok(*ARGS, "run_name=whole").err
    assert "after step 12" in told and "micro-batches" not in told
    assert step_losses(reviews.latest("whole")) == losses
    assert sha256(whole / "latest" / "model.safetensors") == expected


def test_without_room_for_one_example_it_ends_and_names_the_way_out(reviews: Folder, room_for):
    room_for(0)
    failed = reviews(*ARGS)
    assert failed.code == 5 and "one example each" in failed.err and "activation_checkpointing" in failed.err
    assert "Traceback" not in failed.err


def test_another_error_is_not_mistaken_for_it(reviews: Folder, room_for):
    room_for(5, error=RuntimeError("shapes differ"))
    assert reviews(*ARGS).code == 1


def test_evaluation_alone(reviews: Folder, room_for):
    reviews.ok(*ARGS, "run_name=a")
    whole = read_metrics(reviews)
    room_for(3)
    assert read_metrics(reviews) == pytest.approx(whole, rel=1e-6)


def read_metrics(folder: Folder) -> dict[str, float]:
    folder.ok("evaluate", "runs/a/latest", "evaluation.batch_size=8")
    found = read(folder.latest("a") / "evaluation" / "test" / "metrics.json")
    return {name: value for name, value in found.items() if isinstance(value, float) and np.isfinite(value)}
