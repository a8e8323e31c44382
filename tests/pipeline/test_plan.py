"""`llmtune plan` tells what training takes, leaves nothing behind, and says what to change if it does not fit."""

import re

import pytest

from llmtune.training import forecast
from tests.pipeline.conftest import SMALL, Folder

ARGS = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.batch_size=8"]
MODELS = {
    "lstm": SMALL["lstm"],
    "bert": SMALL["bert"],
    "gpt": [*SMALL["gpt"], "task=causal_lm", "data.label_column=null", "tokenizer.max_length=16"],
}


@pytest.mark.parametrize("name", MODELS)
def test_it_tells_steps_memory_and_time(reviews: Folder, name: str):
    before = {path for path in reviews.path.rglob("*") if "cache" not in path.parts}
    told = reviews.ok("plan", *MODELS[name], *ARGS).out
    assert {path for path in reviews.path.rglob("*") if "cache" not in path.parts} == before
    for words in ("throughput", "time to the end", "peak in training", "peak in evaluation", "peak in a save", "a checkpoint"):
        assert words in told
    steps = int(re.search(r"steps +([\d,]+)", told)[1].replace(",", ""))
    trained = reviews.ok("train", *MODELS[name], *ARGS).out
    assert f"{steps} of {steps}" in trained
    assert "does not fit" not in told


def test_what_does_not_fit_is_told_with_overrides(reviews: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(forecast, "available_bytes", lambda device: 1)
    refused = reviews("plan", *SMALL["bert"], *ARGS)
    assert refused.code == 5 and "training.gradient_accumulation_steps=2" in refused.out
    assert "training.activation_checkpointing=true" in refused.out and "tokenizer.max_length=" in refused.out


def test_running_out_of_memory_is_an_answer(reviews: Folder, monkeypatch: pytest.MonkeyPatch):
    from llmtune.tasks.classification import ClassificationTask

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(ClassificationTask, "loss", full)
    refused = reviews("plan", *SMALL["lstm"], *ARGS)
    assert refused.code == 5 and "the longest batch does not fit" in refused.out and "Traceback" not in refused.err


def test_mistakes_are_told_as_by_train(reviews: Folder):
    assert reviews("plan", *SMALL["lstm"], *ARGS, "training.batch_size=-1").code == 2
    assert reviews("plan", *SMALL["lstm"], "data.train_file=nowhere.csv").code == 3
