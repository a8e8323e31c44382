"""Classes, targets, and rows unlike all others."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from llmtune.data.ngrams import WeightedNgrams
from llmtune.inspection import labels
from llmtune.inspection.outliers import outliers, similarities


def table(values: list[str | None], texts: list[str] | None = None) -> pa.Table:
    texts = texts or [f"text {i}" for i in range(len(values))]
    return pa.table(
        {"text": texts, "label": pa.array(values, pa.string()), "file": ["f"] * len(values), "row": list(range(len(values)))}
    )


def of_classes(**splits: list[str]) -> dict[str, labels.Finding]:
    tables = {name: table(values) for name, values in splits.items()}
    return {finding.kind: finding for finding in labels.of_classes(tables, labels.class_sizes(tables))}


def test_imbalance_and_rare_classes():
    found = of_classes(train=["a"] * 40 + ["b"] * 5)
    assert found["imbalance"].title == "classes of unlike size, 8.0:1" and found["imbalance"].count == 5
    assert found["rare_labels"].count == 5 and [e.note for e in found["imbalance"].examples] == ["b"] * 5
    assert of_classes(train=["a"] * 20 + ["b"] * 10) == {}


def test_labels_that_only_a_held_out_split_has():
    found = of_classes(train=["a", "b"], test=["a", "c", "c"])
    assert found["unseen_labels"].split == "test" and found["unseen_labels"].count == 2


def test_labels_that_differ_in_case():
    found = of_classes(train=["Very Good", "very good", "very good", "b", "b"])["alike_labels"]
    assert found.count == 1 and found.overrides == ["data.label_map={Very\\ Good: 'very good'}"]
    assert of_classes(train=["Ü", "ü", "ü", "b", "b"])["alike_labels_by_hand"].overrides == []


def test_missing_labels():
    found = list(labels.missing({"train": table(["a", None, " ", "b"])}))
    assert [(f.count, [e.place for e in f.examples]) for f in found] == [(2, ["f:1", "f:2"])]


def test_targets():
    targets = labels.numbers(table([*map(str, range(30)), "1e6", None, "x"]))
    assert np.isnan(targets[-2:]).all() and targets[30] == 1e6
    found = list(labels.of_numbers("train", table(["0"] * 33), targets))
    assert [(f.kind, f.count, f.examples[0].place) for f in found] == [("far_targets", 1, "f:30")]
    constant = list(labels.of_numbers("train", table(["2"] * 3), np.full(3, 2.0)))
    assert [f.kind for f in constant] == ["constant_target"]


def test_mean_similarity_is_that_of_all_pairs():
    column = pa.chunked_array([["a b c", "b c d"], ["x y", "", "b x"]])
    weights = next(iter(WeightedNgrams([column], bits=18)))[1]
    expected = (cosine_similarity(weights) - np.eye(5)).sum(axis=1) / 4
    expected[3] = 0
    assert similarities([column]) == pytest.approx(expected, abs=1e-6)


def test_a_row_unlike_all_others_is_told():
    rng = np.random.default_rng(0)
    words = ["the", "film", "was", "good", "bad", "long", "short", "we", "saw", "it", "with", "friends", "at", "home", "again"]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(200)]
    texts[50], texts[51] = "SELECT qx FROM zzt WHERE kk = 3", ""
    rows = table(["a"] * 200, texts)
    found = outliers("train", rows, [rows["text"]])
    assert [(f.count, f.examples[0].place) for f in found] == [(1, "f:50")]
    assert outliers("train", rows.slice(0, 20), [rows["text"].slice(0, 20)]) == []
