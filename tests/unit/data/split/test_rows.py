"""Rows set aside: every row in exactly one split, a function of the seed, classes in proportion."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmtune.data.split import split
from llmtune.errors import DataError

KINDS = ("random", "stratified", "contiguous")


def table(labels) -> pa.Table:
    return pa.table({"text": [str(i) for i in range(len(labels))], "label": pa.array(labels, pa.string())})


def ids(part: pa.Table) -> list[int]:
    return [int(text) for text in part["text"].to_pylist()]


@pytest.fixture(scope="session")
def cut(section):
    """`cut(labels, "random", ...)`: the ids of each split."""

    def make(labels, kind, *, validation=0.1, test=0.2, seed=0, stratify=True, others=None):
        config = section(f"split/{kind}", validation_fraction=validation, test_fraction=test)
        parts = split({"train": table(labels), **(others or {})}, config, seed=seed, stratify=stratify)
        return {name: ids(part) for name, part in parts.items()}

    return make


@pytest.mark.parametrize("kind", KINDS)
@given(
    labels=st.lists(st.sampled_from("aaab") | st.none(), min_size=12, max_size=80),
    validation=st.sampled_from([0.0, 0.05, 0.3]),
    test=st.sampled_from([0.0, 0.25, 0.5]),
    seed=st.integers(0, 3),
)
def test_every_row_is_in_one_split_in_order(cut, kind, labels, validation, test, seed):
    if kind == "stratified":  # One row of each class stays.
        assume(len(labels) - len(set(labels)) >= sum(max(1, round(len(labels) * f)) for f in (validation, test) if f))
    parts = cut(labels, kind, validation=validation, test=test, seed=seed)
    assert sorted(i for part in parts.values() for i in part) == list(range(len(labels)))
    assert all(part == sorted(part) for part in parts.values())
    for name, fraction in (("validation", validation), ("test", test)):
        assert len(parts.get(name, ())) == (max(1, round(len(labels) * fraction)) if fraction else 0)
    assert list(parts) == [name for name in ("train", "validation", "test") if name in parts]


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(cut, kind):
    labels = ["a", "b"] * 100
    assert cut(labels, kind, seed=3) == cut(labels, kind, seed=3)
    assert (cut(labels, kind, seed=3) == cut(labels, kind, seed=4)) == (kind == "contiguous")


def test_contiguous_takes_the_last_rows_the_test_behind_the_validation(cut):
    parts = cut(["a"] * 20, "contiguous")
    assert parts == {"train": list(range(14)), "validation": [14, 15], "test": [16, 17, 18, 19]}


@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=5), seed=st.integers(0, 3))
def test_classes_keep_their_shares(cut, counts, seed):
    labels = [str(c) for c, count in enumerate(counts) for _ in range(count)]
    sizes = Counter(labels)
    room = sum(count - 1 for count in counts)
    assume(room >= max(1, round(0.1 * len(labels))) + max(1, round(0.2 * len(labels))))
    parts = cut(labels, "stratified", seed=seed)
    assert set(sizes) == {labels[i] for i in parts["train"]}
    if all(count >= 10 for count in counts):
        for name, fraction in (("validation", 0.1), ("test", 0.2)):
            found = Counter(labels[i] for i in parts[name])
            assert all(abs(found[label] - fraction * size) < 2 for label, size in sizes.items())


def test_the_order_of_the_rows_does_not_decide_about_shares(cut):
    labels = ["b"] * 33 + ["a"] * 34 + ["c"] * 33
    for order in (labels, labels[::-1]):
        found = Counter(order[i] for i in cut(order, "stratified", test=0.0)["validation"])
        assert found == {"a": 4, "b": 3, "c": 3}


def test_without_classes_stratified_is_random(cut):
    labels = [str(i) for i in range(50)]
    assert cut(labels, "stratified", stratify=False) == cut(labels, "random")


@pytest.mark.parametrize("kind", KINDS)
def test_given_splits_stay_as_they_are(cut, kind):
    others = {"validation": table(["x", "y", "z"])}
    parts = cut(["a", "b"] * 20, kind, others=others)
    assert parts["validation"] == [0, 1, 2] and len(parts["test"]) == 8 and len(parts["train"]) == 32
    parts = cut(["a", "b"] * 20, kind, others=others, test=0.0)
    assert set(parts) == {"train", "validation"} and len(parts["train"]) == 40


def test_nothing_is_set_aside_for_fractions_of_zero(cut):
    assert cut(["a", "b"], "stratified", validation=0.0, test=0.0) == {"train": [0, 1]}


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        (["a"], "random", ["1 train rows are too few", "1 for test and 1 for validation", "split.validation_fraction"]),
        (["a", "b"], "contiguous", ["too few"]),
        (["a", "b", "c"], "stratified", ["one of each of the 3 classes", "split=random"]),
        ([str(i) for i in range(50)], "stratified", ["50 classes"]),
    ],
)
def test_too_few_rows(cut, labels, kind, words):
    with pytest.raises(DataError) as caught:
        cut(labels, kind)
    for word in words:
        assert word in str(caught.value)


def test_chunked_tables_are_split_the_same(section):
    labels = ["a", "b", "c", "d"] * 25
    whole = table(labels)
    pieces = pa.concat_tables([whole[:13], whole[13:14], whole[14:]])
    config = section("split/stratified")
    for name, part in split({"train": whole}, config, seed=0, stratify=True).items():
        assert ids(part) == ids(split({"train": pieces}, config, seed=0, stratify=True)[name])


@pytest.mark.parametrize("kind", ["stratified", "kfold", "grouped"])
def test_rare_labels_of_several_come_to_stand_on_every_side(section, kind):
    """In chunks, sliced and not; the frequent label of all rows and rows without labels included."""
    labels = [["all"] * (i % 7 != 0) + ["rare"] * (i % 20 == 0) + ["odd"] * (i % 50 == 3) for i in range(1000)]
    rows = pa.table({"text": [str(i) for i in range(1000)], "labels": labels, "group": [f"g{i // 2}" for i in range(1000)]})
    rows = pa.concat_tables([rows[:10], rows[10:11], pa.table(rows[:500])[11:], rows[500:]])
    changes = {"grouped": {"group_column": "group"}, "kfold": {"num_folds": 5, "fold": 2}}.get(kind, {})
    changes |= {} if kind == "kfold" else {"validation_fraction": 0.2}
    parts = split({"train": rows}, section(f"split/{kind}", **changes, test_fraction=0.0), seed=0, stratify=True)
    for name, share in (("validation", 0.2), ("train", 0.8)):
        counts = Counter(label for row in parts[name]["labels"].to_pylist() for label in row)
        assert counts["rare"] == pytest.approx(50 * share, abs=1) and counts["odd"] == pytest.approx(20 * share, abs=1)
    assert sorted(ids(parts["train"]) + ids(parts["validation"])) == list(range(1000))


@pytest.mark.parametrize("labels", [[[]] * 20, [["a"], *[[]] * 19], [["a", "b"]] * 20])
def test_labels_that_are_few_or_alike(section, labels):
    rows = pa.table({"text": [str(i) for i in range(20)], "labels": pa.array(labels, pa.list_(pa.string()))})
    parts = split(
        {"train": rows}, section("split/stratified", validation_fraction=0.2, test_fraction=0.0), seed=0, stratify=True
    )
    assert len(parts["validation"]) == 4 and len(parts["train"]) == 16
