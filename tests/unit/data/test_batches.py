"""The batch plan: every example once, little padding, and nothing but seed, epoch and lengths decides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.data.batches import BatchRule, deal, evaluation_batches, padding_share, plan_epoch

RULES = [
    BatchRule(batch_size=7),
    BatchRule(batch_size=7, group_by_length=False),
    BatchRule(batch_size=1, max_tokens=120),
    BatchRule(batch_size=1, max_tokens=120, group_by_length=False),
]


def some_lengths(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 60, count).astype(np.int32)


@pytest.mark.parametrize("rule", RULES)
@given(count=st.integers(1, 300), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_example_occurs_once(rule, count, seed, epoch):
    batches = plan_epoch(some_lengths(count), rule, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))


@pytest.mark.parametrize("rule", RULES)
def test_is_a_function_of_seed_and_epoch(rule):
    lengths = some_lengths(200)
    plan = lambda seed, epoch: [b.tolist() for b in plan_epoch(lengths, rule, seed=seed, epoch=epoch)]  # noqa: E731
    assert plan(0, 0) == plan(0, 0)
    assert plan(0, 0) != plan(0, 1)
    assert plan(0, 0) != plan(1, 0)


def test_token_budget_counts_padding():
    lengths = some_lengths(500)
    batches = plan_epoch(lengths, BatchRule(batch_size=1, max_tokens=200), seed=0, epoch=0)
    assert max(len(b) * int(lengths[b].max()) for b in batches) <= 200


def test_an_example_longer_than_the_budget_gets_a_batch_of_its_own():
    lengths = np.array([5, 500, 5], dtype=np.int32)
    batches = plan_epoch(lengths, BatchRule(batch_size=1, max_tokens=100), seed=0, epoch=0)
    assert [1] in [b.tolist() for b in batches]


def test_grouping_saves_padding():
    lengths = some_lengths(3000)
    share = {
        grouped: padding_share(plan_epoch(lengths, BatchRule(32, group_by_length=grouped), seed=0, epoch=0), lengths)
        for grouped in (True, False)
    }
    assert share[True] < 0.05 < 0.4 < share[False]


@pytest.mark.parametrize("hands", [1, 3, 8])
def test_dealing_keeps_every_example(hands):
    lengths = some_lengths(7)
    dealt = deal(lengths, num_micro_batches=hands)
    assert len(dealt) == hands
    assert sorted(np.concatenate(dealt).tolist()) == list(range(7))
    assert hands == 1 or np.diff(lengths[np.concatenate(dealt)]).min() >= 0


def test_evaluation_begins_with_the_longest():
    lengths = some_lengths(50)
    batches = evaluation_batches(lengths, 8)
    assert lengths[batches[0][0]] == lengths.max()
    assert sorted(np.concatenate(batches).tolist()) == list(range(50))
