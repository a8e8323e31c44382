"""Groups on one side each, of the size that is asked for as far as whole groups allow, classes in proportion."""

import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmtune.data.split.groups import assigned
from llmtune.data.split.rows import numbered
from llmtune.errors import DataError


def of(parts, values) -> dict[str, set]:
    return {name: {values[i] for i in rows} for name, rows in parts.items()}


@given(
    groups=st.lists(st.sampled_from("abcdefghij") | st.sampled_from(["用户", "🙂", "a b", "Z" * 300]), min_size=5, max_size=80),
    validation=st.sampled_from([0.0, 0.05, 0.3]),
    test=st.sampled_from([0.05, 0.25, 0.5]),
    seed=st.integers(0, 3),
)
def test_no_group_on_two_sides(sides, groups, validation, test, seed):
    assume(len(set(groups)) >= (3 if validation else 2))
    columns = {"group": groups, "label": (["x", "y"] * len(groups))[: len(groups)]}
    parts = sides("grouped", columns, validation_fraction=validation, test_fraction=test, seed=seed)
    assert sorted(i for rows in parts.values() for i in rows) == list(range(len(groups)))
    assert all(rows for rows in parts.values()) and set(parts) == {"train", "test"} | ({"validation"} if validation else set())
    found = list(of(parts, groups).values())
    assert sum(map(len, found)) == len(set.union(*found))


def test_many_small_groups_give_the_sizes_and_the_classes_that_are_asked_for(sides):
    rng = np.random.default_rng(0)
    groups = [f"u{i}" for i in rng.integers(0, 400, 4000)]
    labels = list(rng.choice(["a", "b", "c"], 4000, p=[0.6, 0.3, 0.1]))
    parts = sides("grouped", {"group": groups, "label": labels}, validation_fraction=0.1, test_fraction=0.2)
    whole = Counter(labels)
    for name, share in (("validation", 0.1), ("test", 0.2)):
        assert abs(len(parts[name]) - 4000 * share) <= 2
        counts = Counter(labels[i] for i in parts[name])
        assert all(abs(counts[label] - share * size) <= 8 for label, size in whole.items())


def test_the_seed_decides_which(sides):
    groups = [f"u{i % 40}" for i in range(400)]
    drawn = [frozenset(of(sides("grouped", {"group": groups}, seed=seed), groups)["test"]) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) == 3


def test_each_group_may_be_large_or_small(sides):
    """In the test stands what is typical, not the small groups alone."""
    groups = [f"{size}-{i}" for size in (1, 10, 50) for i in range(30) for _ in range(size)]
    parts = of(sides("grouped", {"group": groups}, validation_fraction=0.2, test_fraction=0.2), groups)
    for side in parts.values():
        assert {group.partition("-")[0] for group in side} == {"1", "10", "50"}


def test_a_group_larger_than_its_side_is_told(sides, capsys):
    groups = ["big"] * 70 + [f"u{i}" for i in range(30)]
    parts = sides("grouped", {"group": groups})
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 80, "validation": 10, "test": 10}
    told = capsys.readouterr().err
    assert "the group 'big' holds 70 rows, more than the 10 wanted for" in told and "training 80" in told
    sides("grouped", {"group": [f"u{i}" for i in range(100)]})
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (["a"] * 30, ["all 30 rows are of one group", "split.group_column"]),
        (["a", "b"] * 15, ["only 2 groups", "test and validation and training"]),
        (["a", "b", "c", "", "d"] * 6, ["the group is empty", "a.csv:5", "data.where"]),
        (["a", "b", "c", "d", " "] * 6, ["the group is empty", "a.csv:6"]),
        (["a", None, "c", "d", "e"] * 6, ["the group is empty", "a.csv:3"]),
    ],
)
def test_groups_that_will_not_do(sides, groups, words):
    with pytest.raises(DataError) as caught:
        sides("grouped", {"group": groups})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_many_groups_take_seconds():
    sizes = np.random.default_rng(0).integers(1, 6, 300_000)
    counts = np.stack([sizes // 2, sizes - sizes // 2, sizes], axis=1)
    targets = np.outer([0.1, 0.1, 0.8], counts.sum(0))
    started = time.process_time()
    found = assigned(counts, targets, np.random.default_rng(0))
    assert time.process_time() - started < 10
    got = np.stack([counts[found == side].sum(0) for side in range(3)])
    assert np.abs(got - targets).max() < 20


def test_chunks_that_know_different_names():
    codes, known = numbered(pa.chunked_array([["a", "b"], ["c"], ["a", "d"]]))
    assert [known[code].as_py() for code in codes] == ["a", "b", "c", "a", "d"]
