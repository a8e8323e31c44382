"""Thresholds against trying all of them, and what they do to the metrics."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from llmtune.evaluation import thresholds

SHARES = st.sampled_from([0.0, 1e-30, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0])
PAIRS = st.lists(st.tuples(SHARES, st.integers(0, 1)), min_size=1, max_size=25)


def find(shares, references, *, metric=None, names=None):
    probabilities = np.array(shares, dtype=np.float32)
    names = names or [f"class {i}" for i in range(probabilities.shape[1])]
    return thresholds.find(probabilities, np.array(references), metric=metric, label_names=names)


def decided(shares, bias):
    logs = np.log(np.maximum(np.array(shares, dtype=np.float32), thresholds.TINY), dtype=np.float64)
    return (logs + np.array(bias)).argmax(1)


@given(rows=PAIRS)
@settings(max_examples=60)
def test_two_classes_get_the_best_threshold_there_is(rows):
    shares = [[1 - p, p] for p, _ in rows]
    references = np.array([label for _, label in rows])
    counts = np.bincount(references, minlength=2)
    rarest = int(np.where(counts > 0, counts, 99).argmin())
    found = find(shares, references)
    score = lambda predicted: f1_score(references, predicted, labels=[rarest], average="macro", zero_division=0)  # noqa: E731
    cuts = [-200.0, 200.0, 0.0]
    gaps = np.diff(np.log(np.maximum(np.array(shares, np.float32), thresholds.TINY), dtype=np.float64), axis=1)[:, 0]
    cuts += [sign * gap + shift for gap in gaps for sign in (1, -1) for shift in (-1e-6, 1e-6)]
    best = max(score(decided(shares, np.eye(2)[rarest] * cut)) for cut in cuts)
    assert found["metric"] == "f1_minority" and found["rows"] == len(rows) and found["rarest_rows"] == counts[rarest]
    assert found["value"] == pytest.approx(best)
    assert found["value"] == pytest.approx(score(decided(shares, found["label_bias"])))
    assert found["value_without"] == pytest.approx(score(decided(shares, [0, 0])))
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("seed", range(3))
def test_several_classes_gain_and_cannot_gain_more_alone(seed):
    rng = np.random.default_rng(seed)
    references = rng.choice(4, 300, p=[0.7, 0.2, 0.08, 0.02])
    logits = 1.5 * np.eye(4)[references] + rng.normal(size=(300, 4)) + [2.0, 0.5, 0.0, -1.5]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = find(shares, references)
    assert found["metric"] == "f1_macro"
    macro = lambda bias: f1_score(references, decided(shares, bias), average="macro")  # noqa: E731
    assert found["value"] == pytest.approx(macro(found["label_bias"])) and found["value"] > found["value_without"] + 0.02
    for label in range(4):
        for cut in np.linspace(-4, 4, 81):
            assert macro(np.array(found["label_bias"]) + cut * np.eye(4)[label]) <= found["value"] + 1e-9


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    shares, references = rng.dirichlet(np.ones(3), 50), rng.integers(0, 3, 50)
    whole = find(shares, references)
    monkeypatch.setattr(thresholds, "CHUNK_ROWS", 7)
    assert find(shares, references) == whole


def test_the_metric_can_be_chosen():
    rng = np.random.default_rng(0)
    shares, references = rng.dirichlet(np.ones(3), 200), rng.choice(3, 200, p=[0.7, 0.2, 0.1])
    minority = find(shares, references, metric="f1_minority")
    assert minority["metric"] == "f1_minority" and minority["value"] > minority["value_without"]


@pytest.mark.parametrize("references", [[0, 0, 1], [0], [1, 1]])
def test_a_perfect_model_is_left_alone(references):
    found = find([[0.9, 0.1] if label == 0 else [0.2, 0.8] for label in references], references)
    assert found["label_bias"] == [0.0, 0.0] and found["value"] == found["value_without"] == 1.0
    assert "none is better" in thresholds.told(found, ["a", "b"])


def test_a_class_without_rows_keeps_its_place():
    shares = [[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.3, 0.2, 0.5]]
    found = find(shares, [0, 1, 0])
    assert found["label_bias"][2] == 0.0 and found["rarest_rows"] == 1


def test_what_is_told():
    shares = [[0.9, 0.1]] * 8 + [[0.7, 0.3], [0.65, 0.35]]
    found = find(shares, [0] * 8 + [1, 1], names=["ham", "spam"])
    assert found["label_bias"][0] == 0.0
    share = 1 / (1 + np.exp(found["label_bias"][1]))
    assert 0.1 < share < 0.3
    told = thresholds.told(found, ["ham", "spam"])
    assert told == f"spam from a probability of {share:.3g} on (validation f1_minority 0.0000 -> 1.0000)"
    many = {**found, "label_bias": [0.0, 1.5, -0.25, *[0.1] * 9]}
    assert "c1 +1.50, c2 -0.25" in thresholds.told(many, [f"c{i}" for i in range(12)])
    assert ", ... (" in thresholds.told(many, [f"c{i}" for i in range(12)])


@given(rows=st.lists(st.tuples(SHARES, st.booleans(), SHARES, st.booleans()), min_size=1, max_size=20))
@settings(max_examples=60)
def test_each_of_several_labels_gets_the_best_threshold_there_is(rows):
    shares = np.array([[row[0], row[2]] for row in rows], dtype=np.float32)
    references = np.array([[row[1], row[3]] for row in rows])
    found = thresholds.find_each(shares, references, threshold=0.4, label_names=["a", "b"])
    odds = thresholds._log_odds(shares.astype(np.float64))
    border = np.log(0.4 / 0.6)
    for label in range(2):
        score = lambda is_set, label=label: f1_score(references[:, label], is_set, zero_division=0)  # noqa: E731
        best = max(score(shares[:, label] >= cut) for cut in [*shares[:, label], 0.4, 2.0])
        decided = score(odds[:, label] + found["label_bias"][label] >= border)
        assert decided == pytest.approx(best)
        assert found["label_bias"][label] or decided == pytest.approx(score(shares[:, label] >= 0.4))
    assert found["value"] >= found["value_without"] and found["rows"] == len(rows)
    json.dumps(found, allow_nan=False)


def test_thresholds_of_several_labels_are_told():
    shares = np.array([[0.3, 0.9], [0.2, 0.1], [0.1, 0.8]])
    found = thresholds.find_each(shares, np.array([[1, 1], [0, 0], [0, 1]]), threshold=0.5, label_names=["a", "b"])
    assert found["label_bias"][1] == 0 and found["cuts"] == pytest.approx([1 / (1 + np.sqrt(0.7 / 0.3 * 0.8 / 0.2)), 0.5])
    told = thresholds.told(found, ["a", "b"])
    assert told == "labels from a probability of: a 0.247 (validation f1_macro 0.5000 -> 1.0000)"
    nothing = thresholds.find_each(shares[:, 1:], np.array([[1], [0], [1]]), threshold=0.5, label_names=["b"])
    assert "none is better than what there was" in thresholds.told(nothing, ["b"])
