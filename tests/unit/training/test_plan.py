"""The steps of a run where a sampler decides which rows stand in an epoch."""

import json
from itertools import islice

import numpy as np
import pytest
import yaml

from llmtune.config.sections.training import TrainingConfig
from llmtune.data.sampling import ClassSampler
from llmtune.training.plan import TrainPlan
from tests.conftest import ROOT

LENGTHS = np.random.default_rng(1).integers(1, 60, 100).astype(np.int32)
LABELS = (np.arange(100) % 10 == 0).astype(np.int64)  # 90 and 10 rows


def training(**changes) -> TrainingConfig:
    values = yaml.safe_load((ROOT / "configs/training/default.yaml").read_text(encoding="utf-8"))
    return TrainingConfig.model_validate_json(json.dumps({**values, "batch_size": 8, **changes}))


def plan(sizes=(90, 45), **changes) -> TrainPlan:
    sampler = ClassSampler(LABELS, np.array(sizes), seed=0)
    return TrainPlan(LENGTHS, training(**changes), seed=0, sampler=sampler)


def told(steps) -> list:
    return [(s.step, s.epoch, s.ends_epoch, s.indices.tolist(), s.repeats.tolist()) for s in steps]


CUTS = [{}, {"group_by_length": False}, {"max_tokens_per_batch": 300}]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("sizes", [(90, 45), (10, 10), (50, 50)])
def test_an_epoch_holds_what_the_sampler_says(cut, sizes):
    made = plan(sizes, epochs=3, **cut)
    steps = list(made.steps(0))
    assert made.total_steps == len(steps) and [s.step for s in steps] == list(range(len(steps)))
    for epoch in range(3):
        mine = [s for s in steps if s.epoch == epoch]
        assert [s.ends_epoch for s in mine] == [False] * (len(mine) - 1) + [True]
        pairs = [pair for s in mine for pair in zip(s.indices.tolist(), s.repeats.tolist(), strict=True)]
        assert len(set(pairs)) == len(pairs)
        rows, repeats = ClassSampler(LABELS, np.array(sizes), seed=0).epoch(epoch)
        assert sorted(pairs) == sorted(zip(rows.tolist(), repeats.tolist(), strict=True))


@pytest.mark.parametrize("cut", CUTS)
def test_the_steps_go_on_from_anywhere(cut):
    whole = told(plan(epochs=2.5, **cut).steps(0))
    assert told(plan(epochs=2.5, **cut).steps(0)) == whole
    for start in range(0, len(whole), 7):
        assert told(plan(epochs=2.5, **cut).steps(start)) == whole[start:]


def test_without_a_sampler_no_row_comes_again():
    made = TrainPlan(LENGTHS, training(epochs=1), seed=0)
    assert all(not s.repeats.any() for s in made.steps(0)) and made.total_steps == 13


def test_max_steps_count_as_ever():
    assert plan(epochs=None, max_steps=40).total_steps == 40
    assert len(list(islice(plan(epochs=None, max_steps=40).steps(0), 50))) == 40
