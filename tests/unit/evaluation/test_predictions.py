"""predictions.jsonl: valid JSON, one object for each example, read and written one at a time, whole or not at all."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from llmtune.evaluation import predictions

CLASSES = {
    "prediction": np.array([1, 0]),
    "reference": np.array([1, 1]),
    "probabilities": np.array([[0.25, 0.75], [2 / 3, 1 / 3]], dtype=np.float32),
    "loss": np.array([0.28768208, float("inf")]),
    "num_targets": np.ones(2),
}


def written(path, task_type, outputs, rows, label_names=()):
    task = SimpleNamespace(type=task_type, describe=lambda: {"label_names": label_names})
    predictions.write(path, task=task, outputs=outputs, rows=iter(rows))

    def refuse(literal):
        raise AssertionError(f"{literal} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_classes_by_name(tmp_path):
    rows = [
        {"input_ids": np.array([1]), "text": "größer", "text_pair": "<b>", "label": 1},
        {"input_ids": np.array([2]), "text": "a\nb", "text_pair": "", "label": 1},
    ]
    assert written(tmp_path / "p.jsonl", "classification", CLASSES, rows, ["no", "yes"]) == [
        {
            "text": "größer",
            "text_pair": "<b>",
            "reference": "yes",
            "prediction": "yes",
            "probability": 0.75,
            "probabilities": {"no": 0.25, "yes": 0.75},
            "loss": 0.2876821,
        },
        {
            "text": "a\nb",
            "text_pair": "",
            "reference": "yes",
            "prediction": "no",
            "probability": 0.666667,
            "probabilities": {"no": 0.666667, "yes": 0.333333},
            "loss": None,
        },
    ]


def test_numbers_of_a_regression(tmp_path):
    outputs = {
        "prediction": np.float32([0.3, float("nan")]).astype(np.float64),
        "reference": np.array([1.5, -2.0]),
        "loss": np.array([1.44, float("nan")]),
        "num_targets": np.ones(2),
    }
    rows = [{"features": np.array([0.1, 2.0]), "target": 1.5}, {"features": np.array([1.0, 3.0]), "target": -2.0}]
    assert written(tmp_path / "p.jsonl", "regression", outputs, rows) == [
        {"features": [0.1, 2.0], "reference": 1.5, "prediction": 0.3, "loss": 1.44},
        {"features": [1.0, 3.0], "reference": -2.0, "prediction": None, "loss": None},
    ]


def test_blocks_of_a_language_model(tmp_path):
    outputs = {"loss": np.array([6.0, 0.0]), "num_targets": np.array([4.0, 0.0]), "num_correct": np.array([1, 0])}
    assert written(tmp_path / "p.jsonl", "masked_lm", outputs, [{"input_ids": np.array([5]), "text": "a"}, {"text": ""}]) == [
        {"text": "a", "loss": 1.5, "num_targets": 4, "num_correct": 1},
        {"text": "", "loss": None, "num_targets": 0, "num_correct": 0},
    ]
    assert written(tmp_path / "p.jsonl", "causal_lm", outputs, [{"input_ids": np.array([5])}])[0]["num_targets"] == 4


def test_rows_are_read_one_at_a_time(tmp_path):
    """When the last row is read, the first ones are in the file that is being written."""
    num_rows, seen = 2000, []

    def rows():
        for i in range(num_rows):
            if i == num_rows - 1:
                seen.extend(file.stat().st_size for file in tmp_path.iterdir())
            yield {"text": "x" * 1000}

    outputs = {name: np.zeros(num_rows) for name in ("prediction", "reference", "loss", "num_targets")}
    assert len(written(tmp_path / "p.jsonl", "regression", outputs, rows())) == num_rows
    assert len(seen) == 1 and seen[0] > 1_900_000


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text("old")

    def rows():
        yield {"text": "a"}
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        written(path, "classification", CLASSES, rows(), ["no", "yes"])
    assert [file.name for file in tmp_path.iterdir()] == ["p.jsonl"] and path.read_text() == "old"
