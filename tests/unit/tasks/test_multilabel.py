"""Rows with any number of labels."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmtune.errors import DataError
from llmtune.tasks import lists
from llmtune.tasks.base import Draw
from llmtune.tasks.inputs import NumericInputs
from llmtune.tasks.multilabel import MultilabelTask

NAMES = ["a", "b", "c"]
LABELS = [["c", "a"], [], ["b"]]


@pytest.fixture
def task():
    inputs = NumericInputs(names=["x"], mean=[0.0], std=[1.0])
    return MultilabelTask(inputs, label_names=NAMES, threshold=0.7)


def columns(labels=LABELS):
    rows = range(len(labels))
    return {
        "features": pa.array([[float(i)] for i in rows]),
        "labels": pa.array(labels, pa.list_(pa.string())),
        "file": pa.array(["a.csv"] * len(labels)),
        "row": pa.array(rows),
    }


def batch_of(task, labels=LABELS):
    rows = pa.RecordBatch.from_pydict(task.encode(columns(labels))).to_pylist()
    return task.collate([{**row, "id": i} for i, row in enumerate(rows)], Draw(0, 0))


def test_labels_become_ones(task):
    assert batch_of(task).targets["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_the_loss_is_that_of_torch(task):
    batch, logits = batch_of(task), torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.BCEWithLogitsLoss()(logits, batch.targets["labels"])
    assert task.losses(logits, batch.targets).sum() / batch.num_targets == pytest.approx(float(expected))


def test_the_threshold_decides(task):
    def model(features):
        return type("Output", (), {"logits": torch.logit(torch.tensor([[0.71, 0.69, 0.7001]] * len(features)))})

    scores = task.score(model, batch_of(task))
    assert scores.outputs["prediction"].tolist() == [[True, False, True]] * 3
    assert scores.sums["counts"].tolist() == [[1, 3, 1], [0, 0, 1], [1, 3, 1]]
    assert scores.sums["num_exact"] == 1 and scores.sums["f1_samples"] == pytest.approx(1.0)
    assert task.describe()["threshold"] == 0.7


def test_an_unknown_label_is_told(task):
    with pytest.raises(DataError, match="'d' does not occur") as caught:
        task.encode(columns([["a"], [], ["b", "d"]]))
    assert caught.value.where == "a.csv:2"


def table(rows):
    return pa.table({"labels": pa.array(rows, pa.list_(pa.string())), "file": ["a"] * len(rows), "row": range(len(rows))})


def test_names_are_sorted_or_given(capsys):
    assert lists.label_names_of(table([["10", "9"], ["9"]])) == ["9", "10"]
    assert lists.label_names_of(table([["b"]]), ["b", "a"]) == ["b", "a"]
    assert "no train row has the label 'a'" in capsys.readouterr().err


@pytest.mark.parametrize(("rows", "words"), [([[], []], "none of the 2 train rows"), ([["a"], [""]], "label is empty")])
def test_labels_that_cannot_be_learned(rows, words):
    with pytest.raises(DataError, match=words):
        lists.label_names_of(table(rows))


def test_sums_do_not_depend_on_the_batches(task):
    rng = np.random.default_rng(0)
    labels = [[name for name in NAMES if rng.random() < 0.5] for _ in range(9)]

    def model(features):
        return type("Output", (), {"logits": torch.stack([features[:, 0] - 4, 4 - features[:, 0], features[:, 0] % 3], 1)})

    whole = task.score(model, batch_of(task, labels)).sums
    assert whole["counts"][:, 2].tolist() == [sum(name in row for row in labels) for name in NAMES]
