"""Metrics against scikit-learn and against numbers worked out by hand; what is undefined is None, without a warning."""

import ast
import json
import os
import subprocess
import sys
from operator import eq
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from llmtune.config.schema import METRICS
from llmtune.evaluation import metrics
from llmtune.evaluation.tally import Tally, total
from llmtune.tasks.base import Scores
from llmtune.tasks.multilabel import _sums as multilabel_sums
from llmtune.tasks.tags import Scheme, names_of

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.filterwarnings("error")


def tally(outputs, loss_sums, weights):
    """In three batches of unlike size."""
    counted = Tally()
    for rows in np.array_split(np.arange(len(loss_sums)), 3):
        part = {name: values[rows] for name, values in outputs.items()}
        counted.add(Scores(rows, np.asarray(loss_sums, float)[rows], np.asarray(weights, float)[rows], part))
    return counted


def classify(references, predictions, num_classes=3):
    outputs = {"reference": np.array(references), "prediction": np.array(predictions)}
    losses = np.ones(len(references))
    names = [f"class {i}" for i in range(num_classes)]
    return metrics.compute("classification", tally(outputs, losses, losses), label_names=names)


def regress(references, predictions):
    outputs = {"reference": np.array(references, dtype=float), "prediction": np.array(predictions, dtype=float)}
    losses = np.ones(len(references))
    return metrics.compute("regression", tally(outputs, losses, losses))


def model_language(loss_sums, weights, task_type="causal_lm", num_correct=None):
    outputs = {} if num_correct is None else {"num_correct": np.array(num_correct, dtype=np.int64)}
    return metrics.compute(task_type, tally(outputs, loss_sums, weights))


def test_keys_are_those_of_the_schema():
    found = {
        "classification": classify([0, 1], [0, 1]),
        "regression": regress([0, 1], [0, 1]),
        "causal_lm": model_language([1], [1]),
        "masked_lm": model_language([1], [1], "masked_lm", [1]),
        "instruction": model_language([1], [1], "instruction", [1]),
        "preference": of_pairs([1.0, 2.0], [0.5, 3.0]),
        "multilabel": of_labels(np.eye(3, dtype=bool), np.ones((3, 3), dtype=bool)),
        "tagging": of_tags([["B-x", "I-x"]], [["B-x", "O"]]),
    }
    assert found.keys() == METRICS.keys()
    for task_type, known in METRICS.items():
        extras = {"classification": ["per_class", "confusion_matrix"], "multilabel": ["per_class"], "tagging": ["per_class"]}
        extras = extras.get(task_type, [])
        assert list(found[task_type]) == [*known, *extras]


def test_pairs_of_answers():
    found = of_pairs([1.0, 2.0, 0.0], [0.5, 3.0, -0.5])
    assert found["accuracy"] == pytest.approx(2 / 3) and found["margin"] == pytest.approx(0.0)
    assert found["chosen_reward"] == found["rejected_reward"] == pytest.approx(1.0)
    assert found["chosen_log_prob"] == pytest.approx(-9.0) and found["rejected_log_prob"] == pytest.approx(-9.0)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_classification_is_as_in_scikit_learn(num_classes):
    rng = np.random.default_rng(num_classes)
    references = rng.integers(0, num_classes, 200)
    predictions = np.where(rng.random(200) < 0.6, references, rng.integers(0, num_classes, 200))
    found = classify(references, predictions, num_classes)
    assert found["accuracy"] == pytest.approx(np.mean(references == predictions), rel=1e-12)
    assert found["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(references, predictions), rel=1e-12)
    for name in ("precision", "recall", "f1"):
        of = getattr(sklearn.metrics, f"{name}_score")
        for average in ("macro", "micro", "weighted"):
            assert found[f"{name}_{average}"] == pytest.approx(of(references, predictions, average=average), rel=1e-12)
        each = [row[name] for row in found["per_class"].values()]
        assert each == pytest.approx(list(of(references, predictions, average=None)), rel=1e-12)
    assert found["confusion_matrix"] == sklearn.metrics.confusion_matrix(references, predictions).tolist()


def test_classification_by_hand():
    found = classify([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2])
    assert found["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert found["per_class"]["class 0"] == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert found["per_class"]["class 2"] == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert found["f1_macro"] == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert found["f1_weighted"] == pytest.approx((3 * 0.8 + 2 * 0.5 + 2 / 3) / 6)
    assert found["accuracy"] == found["f1_micro"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_metrics_of_imbalance(num_classes):
    rng = np.random.default_rng(num_classes)
    references = rng.choice(num_classes, 300, p=np.array([0.8, *[0.2 / (num_classes - 1)] * (num_classes - 1)]))
    predictions = np.where(rng.random(300) < 0.7, references, rng.integers(0, num_classes, 300))
    found = classify(references, predictions, num_classes)
    balanced = sklearn.metrics.balanced_accuracy_score(references, predictions)
    rarest = int(np.bincount(references).argmin())
    assert found["balanced_accuracy"] == pytest.approx(balanced, rel=1e-12)
    assert found["f1_minority"] == found["per_class"][f"class {rarest}"]["f1"]


def test_the_minority_has_rows():
    assert classify([0, 0, 0, 1], [0, 2, 2, 1])["f1_minority"] == 1.0  # not class 2, which is predicted alone
    assert classify([0, 1], [0, 0])["f1_minority"] == pytest.approx(2 / 3)  # the first of several


def test_without_thresholds():
    outputs = {"reference": np.array([0, 1, 1]), "prediction": np.array([0, 1, 1]), "unbiased": np.array([0, 0, 1])}
    counted = total([tally(outputs, np.ones(3), np.ones(3)), Tally()])
    found = metrics.compute("classification", counted, label_names=["a", "b"])
    plain = classify([0, 1, 1], [0, 0, 1], 2)
    assert found["accuracy"] == 1.0 and list(found)[-1] == "without_thresholds"
    assert found["without_thresholds"] == {name: plain[name] for name in METRICS["classification"] if name != "loss"}


def test_a_class_that_does_not_occur_counts_for_nothing():
    found = classify([0, 0, 1], [0, 3, 1], num_classes=5)
    assert found["per_class"]["class 4"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert found["per_class"]["class 3"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert np.array(found["confusion_matrix"]).shape == (5, 5) and found["confusion_matrix"][0] == [1, 0, 0, 1, 0]


@pytest.mark.parametrize(
    "references, predictions",
    [([1], [1]), ([1], [0]), ([1, 1, 1], [1, 1, 1]), ([0, 1, 2], [1, 1, 1]), (range(30), range(1, 31))],
    ids=["one row", "one wrong row", "one class", "one prediction", "as many classes as rows"],
)
def test_odd_splits_give_finite_numbers(references, predictions):
    found = classify(list(references), list(predictions), num_classes=31)
    assert all(isinstance(found[name], float) for name in METRICS["classification"])
    json.dumps(found, allow_nan=False)


def test_regression_by_hand():
    found = regress([1, 3, 5], [1, 2, 4])
    assert found["mse"] == pytest.approx(2 / 3) and found["mae"] == pytest.approx(2 / 3)
    assert found["r2"] == pytest.approx(1 - 2 / 8)
    assert found["pearson"] == pytest.approx(np.corrcoef([1, 3, 5], [1, 2, 4])[0, 1], rel=1e-12)
    assert found["spearman"] == pytest.approx(1.0)


def test_spearman_is_pearson_of_mean_ranks():
    found = regress([10, 20, 20, 40], [5, 9, 6, 6])
    assert found["spearman"] == pytest.approx(np.corrcoef([1, 2.5, 2.5, 4], [1, 4, 2.5, 2.5])[0, 1], rel=1e-12)


@pytest.mark.parametrize(
    "references, predictions, undefined",
    [
        ([2.0], [1.0], {"r2", "pearson", "spearman"}),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], {"pearson", "spearman"}),
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], {"r2", "pearson", "spearman"}),
        ([1.0, 2.0, 3.0], [1e9, 1e9, 1e9 + 1e-6], {"pearson"}),
        ([1.0, 2.0, 3.0], [1.0, float("nan"), 3.0], {"mse", "mae", "r2", "pearson", "spearman"}),
        ([1.0, 2.0, 3.0], [1.0, float("inf"), 3.0], {"mse", "mae", "r2", "pearson", "spearman"}),
    ],
    ids=["one row", "constant predictions", "constant references", "nearly constant", "nan", "infinity"],
)
def test_what_is_undefined_is_none(references, predictions, undefined):
    found = regress(references, predictions)
    assert {name for name, value in found.items() if value is None} == undefined
    json.dumps(found, allow_nan=False)


def test_the_loss_is_a_mean_over_targets_not_over_examples():
    found = model_language([2.0, 9.0], [1, 3])
    assert found["loss"] == pytest.approx(11 / 4)
    assert found["perplexity"] == pytest.approx(np.exp(11 / 4))


def test_the_loss_is_summed_in_float64():
    losses = np.full(100_000, 0.1)
    losses[0] = 1e8
    assert model_language(losses, np.ones(100_000))["loss"] == pytest.approx((1e8 + 9999.9) / 100_000, rel=1e-12)


@pytest.mark.parametrize(
    "loss_sums, weights, expected",
    [
        ([800.0], [1], {"loss": 800.0, "perplexity": None}),
        ([0.0], [0], {"loss": None, "perplexity": None}),
        ([float("nan")], [1], {"loss": None, "perplexity": None}),
        ([float("inf")], [1], {"loss": None, "perplexity": None}),
    ],
    ids=["overflow", "no targets", "nan", "infinity"],
)
def test_loss_and_perplexity_are_finite_or_none(loss_sums, weights, expected):
    assert model_language(loss_sums, weights) == expected


def test_masked_accuracy_is_over_targets():
    found = model_language([1, 1], [1, 3], "masked_lm", [1, 0])
    assert found["accuracy"] == 0.25
    assert model_language([0], [0], "masked_lm", [0])["accuracy"] is None


def test_random_state_of_others_is_left_alone():
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)
    classify([0, 1], [0, 1])
    assert np.random.random(3) == pytest.approx(expected, abs=0)


def test_nothing_is_written_and_nothing_is_said(tmp_path):
    code = """
import numpy as np
from llmtune.evaluation import metrics
from llmtune.evaluation.tally import Tally
from llmtune.tasks.base import Scores
outputs = {"prediction": np.array([0.0, 1.0]), "reference": np.array([1.0, 2.0])}
tally = Tally()
tally.add(Scores(np.arange(2), np.ones(2), np.ones(2), outputs))
metrics.compute("regression", tally)
"""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    places = {"HOME": "/dev/null/nowhere", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env={**kept, **places}, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.rglob("*")) == []


def test_only_the_metrics_import_evaluate():
    for file in (ROOT / "llmtune").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        everywhere = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        at_once = {f"{n.module}.{a.name}" for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
        assert "evaluate" not in everywhere or file.name == "metrics.py", f"{file} imports evaluate"
        assert "llmtune.evaluation.metrics" not in at_once, f"{file} imports evaluate before it is needed"


def of_pairs(chosen, rejected) -> dict:
    """The metrics of pairs of answers with these rewards, each answer less likely by ten than its reward."""
    tallied = Tally()
    for ours, theirs in zip(chosen, rejected, strict=True):
        sums = {"right": ours > theirs, "chosen_reward": ours, "rejected_reward": theirs}
        sums |= {"chosen_log_prob": ours - 10, "rejected_log_prob": theirs - 10}
        ones = np.ones(1)
        tallied.add(Scores(np.zeros(1), ones, ones, {}, {name: np.float64(value) for name, value in sums.items()}))
    return metrics.compute("preference", tallied)


def of_labels(predicted_NC, reference_NC) -> dict:
    """The metrics of several labels, added up in batches of two rows."""
    tallied = Tally()
    for start in range(0, len(predicted_NC), 2):
        both = predicted_NC[start : start + 2], reference_NC[start : start + 2]
        ones = np.ones(len(both[0]))
        tallied.add(Scores(np.arange(len(ones)), ones, ones, {}, multilabel_sums(*both)))
    return metrics.compute("multilabel", tallied, label_names=[f"l{i}" for i in range(predicted_NC.shape[1])])


@pytest.mark.parametrize("seed", range(5))
def test_several_labels_are_scored_as_by_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    reference, predicted = (rng.random((31, 5)) < share for share in (0.3, 0.4))
    reference[:, 4] = predicted[:, 4] = False  # a label that never occurs counts 0, as in scikit-learn
    found = of_labels(predicted, reference)
    for average in ("micro", "macro", "weighted", "samples"):
        scores = sklearn.metrics.precision_recall_fscore_support(reference, predicted, average=average, zero_division=0)[:3]
        for name, score in zip(("precision", "recall", "f1"), scores, strict=True):
            assert average == "samples" and name != "f1" or found[f"{name}_{average}"] == pytest.approx(score)
    assert found["exact_match"] == pytest.approx(sklearn.metrics.accuracy_score(reference, predicted))
    assert found["hamming_loss"] == pytest.approx(sklearn.metrics.hamming_loss(reference, predicted))
    assert found["per_class"]["l4"] == {"precision": None, "recall": None, "f1": None, "support": 0}


def of_tags(reference, predicted) -> dict:
    """The metrics of tagged sentences."""
    names = names_of(sorted({tag for row in [*reference, *predicted] for tag in row} | {"O"}))
    scheme = Scheme(names)
    both = [np.array([i for row in rows for i in [*map(names.index, row), -1]]) for rows in (predicted, reference)]
    words = np.array([sum(map(eq, a, b)) for a, b in zip(predicted, reference, strict=True)])
    sums = {"counts": scheme.counts(*both), "words": np.array([words.sum(), sum(map(len, reference))])}
    tallied = Tally()
    tallied.add(Scores(np.arange(1), np.ones(1), np.ones(1), {}, sums))
    return metrics.compute("tagging", tallied, entity_types=scheme.types)


# References, predictions, and what seqeval 1.2.2 says: precision, recall, F1, F1 macro and weighted, accuracy.
TAGGED = {
    "right": ([["B-x", "I-x", "O"]], [["B-x", "I-x", "O"]], (1, 1, 1, 1, 1, 1)),
    "cut": ([["B-x", "I-x", "O"]], [["B-x", "O", "O"]], (0, 0, 0, 0, 0, 2 / 3)),
    "I after O begins": ([["O", "B-x", "I-x"]], [["O", "I-x", "I-x"]], (1, 1, 1, 1, 1, 2 / 3)),
    "I of another type begins": ([["B-x", "B-y"]], [["B-x", "I-y"]], (1, 1, 1, 1, 1, 1 / 2)),
    "two neighbours": ([["B-x", "B-x"]], [["B-x", "I-x"]], (0, 0, 0, 0, 0, 1 / 2)),
    "sentences end entities": ([["B-x"], ["B-x"]], [["B-x"], ["I-x"]], (1, 1, 1, 1, 1, 1 / 2)),
    "other types": (
        [["B-x", "O", "B-y"], ["B-x", "I-x", "B-x"]],
        [["B-y", "O", "B-y"], ["B-x", "I-x", "O"]],
        (2 / 3, 1 / 2, 4 / 7, (1 / 2 + 2 / 3) / 2, (1 / 2 * 3 + 2 / 3) / 4, 4 / 6),
    ),
    "nothing": ([["O", "O"]], [["O", "B-x"]], (0, 0, 0, 0, 0, 1 / 2)),
}


@pytest.mark.parametrize("name", TAGGED)
def test_entities_are_scored_as_by_seqeval(name):
    reference, predicted, expected = TAGGED[name]
    found = of_tags(reference, predicted)
    names = ("precision", "recall", "f1", "f1_macro", "f1_weighted", "accuracy")
    assert tuple(found[n] for n in names) == pytest.approx(expected)


def test_words_without_prefixes_are_entities_each():
    found = of_tags([["DET", "N", "N"]], [["DET", "N", "V"]])
    assert found["f1"] == found["accuracy"] == pytest.approx(2 / 3)
    assert found["per_class"]["N"] == pytest.approx({"precision": 1, "recall": 0.5, "f1": 2 / 3, "support": 2})
