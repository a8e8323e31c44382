"""The same scores, in example order, whatever the batch size."""

import numpy as np
import pytest

from llmtune.config.schema import METRICS
from llmtune.evaluation.evaluate import evaluate, score_split


@pytest.mark.parametrize("batch_size", [4, 7, 1000])
def test_batch_size_changes_nothing(case, compute, batch_size):
    model, task, split = case
    alone = score_split(model, task, split, batch_size=1, compute=compute, seed=3)
    together = score_split(model, task, split, batch_size=batch_size, compute=compute, seed=3)
    assert together.loss_sums == pytest.approx(alone.loss_sums, rel=1e-6)
    assert (together.weights == alone.weights).all()
    assert together.outputs.keys() == alone.outputs.keys()
    for name, values in alone.outputs.items():
        assert together.outputs[name] == pytest.approx(values, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("batch_size", [4, 7, 1000])
def test_batch_size_does_not_change_the_metrics(case, compute, batch_size):
    model, task, split = case
    names = METRICS[task.type]
    alone, together = (evaluate(model, task, split, batch_size=n, compute=compute, seed=3).metrics for n in (1, batch_size))
    assert {n: together[n] for n in names} == pytest.approx({n: alone[n] for n in names}, rel=1e-6)


def test_scores_stand_in_the_order_of_the_examples(case, compute):
    model, task, split = case
    scores = score_split(model, task, split, batch_size=5, compute=compute, seed=3)
    assert (scores.example_ids == np.arange(split.num_rows)).all()
    if task.type == "causal_lm":
        assert scores.weights.tolist() == [n - 1 for n in split.lengths]
    if task.type == "classification":
        assert scores.outputs["reference"].tolist() == [row["label"] for row in split.rows(range(split.num_rows))]


@pytest.mark.parametrize("case", ["masked_lm"], indirect=True)
def test_the_seed_draws_the_masks(case, compute):
    model, task, split = case
    first, same, other = (score_split(model, task, split, batch_size=5, compute=compute, seed=s) for s in (3, 3, 4))
    assert (first.loss_sums == same.loss_sums).all() and (first.loss_sums != other.loss_sums).any()
