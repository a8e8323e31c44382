"""Classification and regression against the formulas, and a task from what it tells of itself."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmtune.errors import CheckpointError, DataError
from llmtune.tasks.base import Draw
from llmtune.tasks.classification import ClassificationTask
from llmtune.tasks.inputs import NumericInputs
from llmtune.tasks.registry import model_spec, rebuild
from llmtune.tasks.regression import RegressionTask

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.1, 0.2], [-3.0, 4.0, 1.0], [1.0, 1.0, 1.0]])
LABELS = [0, 1, 1, 2]


@pytest.fixture
def numbers() -> NumericInputs:
    return NumericInputs(names=["x", "y"], mean=[0.5, 1.0], std=[1.0, 2.0])


@pytest.fixture
def classification(numbers) -> ClassificationTask:
    return ClassificationTask(numbers, label_names=["a", "b", "c"])


@pytest.fixture
def regression(numbers) -> RegressionTask:
    return RegressionTask(numbers, target_mean=1.0, target_std=2.0)


def examples(key: str | None, values) -> list[dict]:
    return [{"id": 10 + i, "features": [float(i), -1.0], **({key: v} if key else {})} for i, v in enumerate(values)]


def test_a_batch_of_numbers(classification):
    batch = classification.collate(examples("label", LABELS), Draw(0, 0))
    assert batch.inputs["features"].tolist() == [[0.0, -1.0], [1.0, -1.0], [2.0, -1.0], [3.0, -1.0]]
    assert batch.inputs["features"].dtype == torch.float32
    assert batch.targets["labels"].tolist() == LABELS and batch.example_ids.tolist() == [10, 11, 12, 13]
    assert batch.lengths.tolist() == [1] * 4 and batch.num_targets == 4.0


def test_inputs_and_targets_move_and_ids_stay(classification):
    batch = classification.collate(examples("label", LABELS), Draw(0, 0))
    moved = batch.to(torch.device("meta"))
    assert {tensor.device.type for tensor in (*moved.inputs.values(), *moved.targets.values())} == {"meta"}
    assert moved.example_ids.tolist() == [10, 11, 12, 13] and moved.lengths.tolist() == [1] * 4
    assert moved.num_targets == batch.num_targets and batch.inputs["features"].device.type == "cpu"


def test_cross_entropy(classification, fixed):
    model = fixed(LOGITS.clone())
    batch = classification.collate(examples("label", LABELS), Draw(0, 0))
    loss = classification.loss(model, batch).sum
    by_hand = sum(-np.log(np.exp(row[label]) / np.exp(row).sum()) for row, label in zip(LOGITS.numpy(), LABELS, strict=True))
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    assert torch.equal(model.asked["features"], batch.inputs["features"])
    loss.backward()
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 3)
    assert torch.allclose(model.logits.grad, LOGITS.softmax(-1) - one_hot, atol=1e-6)  # a sum, not a mean


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scores_of_classes(classification, fixed, dtype):
    batch = classification.collate(examples("label", LABELS), Draw(0, 0))
    with torch.no_grad():
        scores = classification.score(fixed(LOGITS.to(dtype)), batch)
        total = classification.loss(fixed(LOGITS.to(dtype)), batch).sum
    assert scores.loss_sums.sum() == pytest.approx(total.item(), rel=1e-6) and scores.loss_sums.dtype == np.float64
    assert scores.outputs["prediction"].tolist()[:3] == [0, 2, 1]
    assert scores.outputs["reference"].tolist() == LABELS
    assert np.allclose(scores.outputs["probabilities"].sum(-1), 1, atol=1e-6)
    assert scores.weights.tolist() == [1.0] * 4 and scores.example_ids.tolist() == [10, 11, 12, 13]


def test_a_bias_moves_the_decision_and_nothing_else(numbers, fixed):
    plain, moved = (ClassificationTask(numbers, label_names=["a", "b", "c"], label_bias=b) for b in (None, [0.0, 0.0, 1.6]))
    batch = plain.collate(examples("label", LABELS), Draw(0, 0))
    with torch.no_grad():
        before, after = (task.score(fixed(LOGITS.clone()), batch) for task in (plain, moved))
    assert after.outputs["prediction"].tolist() == [2, 2, 1, 2]
    assert after.outputs["unbiased"].tolist() == before.outputs["prediction"].tolist() and "unbiased" not in before.outputs
    assert np.array_equal(after.outputs["probabilities"], before.outputs["probabilities"])
    assert np.array_equal(after.loss_sums, before.loss_sums)


def test_a_criterion_is_for_training_alone(classification, fixed):
    batch = classification.collate(examples("label", LABELS), Draw(0, 0))
    with torch.no_grad():
        before = classification.score(fixed(LOGITS.clone()), batch).loss_sums
        classification.criterion = lambda logits, labels: 3 * torch.ones(len(labels))
        assert classification.loss(fixed(LOGITS.clone()), batch).sum == 12
        assert np.array_equal(classification.score(fixed(LOGITS.clone()), batch).loss_sums, before)


def test_mean_squared_error(regression, fixed):
    predicted, targets = torch.tensor([[1.0], [2.5], [-1.0]]), [0.5, 2.5, 1e3]
    model, batch = fixed(predicted.clone()), regression.collate(examples("target", targets), Draw(0, 0))
    loss = regression.loss(model, batch).sum
    assert loss.item() == pytest.approx(0.25 + 0.0 + 1001.0**2)
    loss.backward()
    assert torch.allclose(model.logits.grad.squeeze(-1), 2 * (predicted.squeeze(-1) - torch.tensor(targets)))
    with torch.no_grad():
        scores = regression.score(model, batch)
    assert scores.loss_sums.tolist() == pytest.approx([0.25, 0.0, 1001.0**2])
    assert scores.outputs["prediction"].tolist() == [1.0, 2.5, -1.0] and scores.outputs["reference"].tolist() == targets
    assert batch.targets["values"].dtype == torch.float32 and batch.num_targets == 3.0


@pytest.mark.parametrize("name", ["classification", "regression"])
def test_rows_without_targets_are_scored(name, request, fixed):
    task = request.getfixturevalue(name)
    batch = task.collate(examples(None, range(4)), Draw(0, 0, training=False))
    with torch.no_grad():
        scores = task.score(fixed(LOGITS[:, :1] if name == "regression" else LOGITS), batch)
    assert batch.targets == {} and "reference" not in scores.outputs
    assert len(scores.outputs["prediction"]) == 4 and scores.loss_sums.tolist() == [0.0] * 4


def test_labels_are_encoded_by_name(classification):
    given = {"features": [[1.0, 2.0]] * 3, "label": ["c", "a", "c"], "file": ["f.csv"] * 3, "row": [2, 3, 4]}
    columns = {name: pa.array(values) for name, values in given.items()}
    assert classification.encode(columns) == {"features": columns["features"], "label": pa.array([2, 0, 2])}
    assert "label" not in classification.encode({"features": columns["features"]})
    for label, words in (("d", "'d' does not occur"), (None, "is empty"), ("", "is empty"), (" a", "' a'")):
        with pytest.raises(DataError, match=words) as caught:
            classification.encode({**columns, "label": pa.array(["a", label, "b"])})
        assert caught.value.where == "f.csv:3" and "a, b, c" in caught.value.remedy


def test_many_labels_are_not_all_told(numbers):
    task = ClassificationTask(numbers, label_names=[f"name-{i}" for i in range(500)])
    with pytest.raises(DataError) as caught:
        columns = {"features": [[0.0, 0.0]], "label": ["x" * 10_000], "file": ["f"], "row": [1]}
        task.encode({name: pa.array(values) for name, values in columns.items()})
    assert len(str(caught.value)) < 500 and "name-9, ..." in caught.value.remedy


TEXT = {"max_length": 16, "pad_token_id": 0, "token_types": True, "has_pairs": False}
NUMERIC = {"feature_names": ["x"], "feature_mean": [1.5], "feature_std": [2.0]}
DESCRIPTIONS = [
    {"type": "classification", "label_names": ["a", "b"], **TEXT},
    {"type": "classification", "label_names": ["a", "b"], **NUMERIC},
    {"type": "regression", "target_mean": 0.5, "target_std": 2.0, **TEXT},
    {"type": "regression", "target_mean": 0.5, "target_std": 2.0, **NUMERIC},
    {"type": "causal_lm", "end_of_text": None, **TEXT},
    {"type": "causal_lm", "end_of_text": 3, **TEXT},
    {"type": "masked_lm", "mask_probability": 0.15, "mask_token_id": 4, "special_ids": [0, 1], "vocab_size": 30, **TEXT},
    {"type": "classification", "label_names": ["a", "b"], "label_bias": [0.0, 1.5], **NUMERIC},
]


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: d["type"])
def test_a_task_is_what_it_tells_of_itself(description):
    told = json.loads(json.dumps(rebuild(description, None).describe()))
    assert told == description
    assert rebuild(told, None).type == description["type"]


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: d["type"])
def test_a_description_with_a_gap(description):
    for key in set(description) - {"feature_names", "label_bias"}:
        with pytest.raises(CheckpointError, match=f"lacks '{key}'"):
            rebuild({name: value for name, value in description.items() if name != key}, None)


def test_a_task_of_another_version():
    with pytest.raises(CheckpointError, match="unknown task 'parsing'"):
        rebuild({"type": "parsing"}, None)


def test_what_a_model_is_told():
    spec = model_spec(DESCRIPTIONS[1], {})
    assert (spec.num_outputs, spec.num_features, spec.feature_mean, spec.vocab_size) == (2, 1, (1.5,), 0)
    facts = {"vocab_size": 30, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    spec = model_spec(DESCRIPTIONS[2], facts)
    assert (spec.num_outputs, spec.vocab_size, spec.max_length, spec.target_std) == (1, 30, 16, 2.0)
