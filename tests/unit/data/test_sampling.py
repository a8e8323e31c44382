"""Rows of an epoch: how many of each class, each as often as another, and nothing but seed and epoch decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.config.sections.balance import OverSampling, TemperatureSampling, UnderSampling
from llmtune.data.sampling import ClassSampler, class_sizes

COUNTS = st.lists(st.integers(0, 60), min_size=2, max_size=6).filter(any).map(np.array)


def over(ratio):
    return OverSampling(type="oversample", ratio=ratio)


def under(ratio):
    return UnderSampling(type="undersample", ratio=ratio)


def temperature(value):
    return TemperatureSampling(type="temperature", temperature=value)


RULES = [over(1.0), over(0.3), under(1.0), under(0.25), temperature(1.0), temperature(2.0), temperature(1e6)]


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        (over(1.0), [900, 900, 0, 900]),
        (over(0.5), [900, 450, 0, 450]),
        (under(1.0), [1, 1, 0, 1]),
        (under(0.01), [100, 99, 0, 1]),
        (temperature(1.0), [900, 99, 0, 1]),
        (temperature(2.0), [733, 243, 0, 24]),  # 30 : sqrt(99) : 1
        (temperature(1e6), [334, 333, 0, 333]),
    ],
)
def test_sizes_by_hand(rule, sizes):
    assert class_sizes(rule, np.array([900, 99, 0, 1])).tolist() == sizes


@pytest.mark.parametrize("rule", RULES)
@given(counts=COUNTS)
def test_sizes_keep_the_order_of_the_classes(rule, counts):
    sizes = class_sizes(rule, counts)
    assert ((sizes > 0) == (counts > 0)).all()
    assert all(sizes[i] >= sizes[j] - 1 for i in range(len(counts)) for j in range(len(counts)) if counts[i] >= counts[j] > 0)
    if rule.type == "temperature":
        assert sizes.sum() == counts.sum()
    else:
        assert ((sizes >= counts) if rule.type == "oversample" else (sizes <= counts)).all()


def labels_of(counts: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


@pytest.mark.parametrize("rule", RULES)
@given(counts=COUNTS, seed=st.integers(0, 3), epoch=st.integers(0, 9))
def test_an_epoch_repeats_whole_rounds_first(rule, counts, seed, epoch):
    labels, sizes = labels_of(counts), class_sizes(rule, counts)
    sampler = ClassSampler(labels, sizes, seed=seed)
    rows, repeats = sampler.epoch(epoch)
    assert len(rows) == len(repeats) == sampler.num_rows == sizes.sum()
    assert np.bincount(labels[rows], minlength=len(counts)).tolist() == sizes.tolist()
    for label in np.flatnonzero(counts):
        times = np.bincount(rows, minlength=len(labels))[labels == label]
        assert times.max() - times.min() <= 1
    for row in np.unique(rows):
        assert repeats[rows == row].tolist() == list(range((rows == row).sum()))
    again = ClassSampler(labels, sizes, seed=seed).epoch(epoch)
    assert np.array_equal(rows, again[0]) and np.array_equal(repeats, again[1])


def test_every_row_is_taken_before_any_is_taken_twice():
    labels = labels_of(np.array([100, 7]))
    sampler = ClassSampler(labels, np.array([7, 7]), seed=0)
    taken = [sampler.epoch(epoch)[0] for epoch in range(100)]
    times = np.zeros(107, int)
    for rows in taken[:14]:
        times[rows] += 1
    assert times[labels == 0].max() == 1 and (times[labels == 1] == 14).all()
    for rows in taken[14:]:
        times[rows] += 1
    assert (times[labels == 0] == 7).all()


def test_other_seeds_take_other_rows():
    labels = labels_of(np.array([100, 7]))
    drawn = [set(ClassSampler(labels, np.array([7, 7]), seed=seed).epoch(0)[0].tolist()) for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_a_single_row():
    rows, repeats = ClassSampler(np.array([1]), np.array([0, 3]), seed=0).epoch(5)
    assert rows.tolist() == [0, 0, 0] and repeats.tolist() == [0, 1, 2]
