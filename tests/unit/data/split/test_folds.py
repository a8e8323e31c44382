"""Each row is a validation row of exactly one fold; folds are alike in size, and in classes where that is asked for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.errors import ConfigError, DataError


def all_folds(sides, columns, num_folds, **changes) -> list[dict[str, list[int]]]:
    return [sides("kfold", columns, num_folds=num_folds, fold=fold + 1, **changes) for fold in range(num_folds)]


@given(
    labels=st.lists(st.sampled_from("aaab") | st.none(), min_size=12, max_size=60),
    num_folds=st.integers(2, 6),
    stratify=st.booleans(),
    grouped=st.booleans(),
    test=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2),
)
def test_each_row_is_in_one_fold(sides, labels, num_folds, stratify, grouped, test, seed):
    columns = {"label": labels, "group": [f"u{i * i % 17}" for i in range(len(labels))]}
    changes = {"stratify": stratify, "test_fraction": test, "seed": seed, "group_column": "g" if grouped else None}
    if stratify and not grouped:
        changes["test_fraction"] = 0.0
        if min(Counter(labels).values()) < num_folds:
            with pytest.raises(DataError, match=r"rows, fewer than the \d folds"):
                all_folds(sides, columns, num_folds, **changes)
            return
    folds = all_folds(sides, columns, num_folds, **changes)
    held_out = [i for fold in folds for i in fold["validation"]] + folds[0].get("test", [])
    assert sorted(held_out) == list(range(len(labels)))
    for fold in folds:
        assert sorted(i for rows in fold.values() for i in rows) == list(range(len(labels)))
        assert fold.get("test") == folds[0].get("test")
        if grouped:
            groups = [{columns["group"][i] for i in rows} for rows in fold.values()]
            assert sum(map(len, groups)) == len(set.union(*groups))
    if not grouped:
        sizes = [len(fold["validation"]) for fold in folds]
        assert max(sizes) - min(sizes) <= 1


def test_classes_have_the_same_share_in_every_fold(sides):
    labels = ["a"] * 101 + ["b"] * 47 + ["c"] * 7
    counts = [Counter(labels[i] for i in fold["validation"]) for fold in all_folds(sides, {"label": labels}, 5)]
    for label in "abc":
        found = [count[label] for count in counts]
        assert max(found) - min(found) <= 1


def test_groups_with_classes(sides):
    rng = np.random.default_rng(0)
    groups, labels = [f"u{i}" for i in rng.integers(0, 100, 2000)], list(rng.choice(["a", "b"], 2000, p=[0.8, 0.2]))
    folds = all_folds(sides, {"label": labels, "group": groups}, 5, group_column="g")
    counts = [Counter(labels[i] for i in fold["validation"]) for fold in folds]
    assert all(abs(count["b"] - labels.count("b") / 5) <= 8 and abs(count.total() - 400) <= 4 for count in counts)


def test_the_largest_group_alone_in_its_fold(sides):
    groups = ["big"] * 60 + [f"u{i % 4}" for i in range(40)]
    sizes = sorted(len(fold["validation"]) for fold in all_folds(sides, {"group": groups}, 3, group_column="g"))
    assert sizes == [20, 20, 60]


def test_without_classes_stratify_has_no_effect(sides):
    labels, how = [str(i) for i in range(30)], {"num_folds": 3, "fold": 1}
    plain = sides("kfold", {"label": labels}, stratify=False, **how)
    assert sides("kfold", {"label": labels}, has_classes=False, **how) == plain


@pytest.mark.parametrize(
    ("columns", "changes", "words"),
    [
        ({"label": ["a", "b"]}, {"num_folds": 3}, ["2 train rows cannot be divided into 3 folds", "split.num_folds"]),
        ({"label": ["a"] * 20 + ["b"] * 4}, {}, ["class 'b' has 4 rows, fewer than the 5 folds", "split.stratify=false"]),
        ({"label": ["a"] * 20 + [None]}, {}, ["class '' has 1 rows"]),
        ({"group": ["u"] * 20}, {"group_column": "g"}, ["all 20 rows are of one group"]),
        ({"group": ["u", "v", "w"] * 9}, {"group_column": "g"}, ["only 3 groups", "fold 5"]),
    ],
)
def test_what_cannot_be_divided(sides, columns, changes, words):
    with pytest.raises(DataError) as caught:
        sides("kfold", columns, fold=1, **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_fold_has_to_be_named(sides):
    with pytest.raises(ConfigError, match="split.fold"):
        sides("kfold", {"label": ["a", "b"] * 20})
