"""Who gets which row: over all ranks, loader processes and micro-batches each row occurs once in an epoch, resumed or not."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from llmtune.config.sections.training import TrainingConfig
from llmtune.tasks.base import Batch
from llmtune.training.plan import TrainPlan, window, windows

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "training" / "default.yaml"


class Rows:
    """A split of which nothing but the lengths is known."""

    def __init__(self, lengths: list[int]):
        self.lengths = np.array(lengths, dtype=np.int32)

    def rows(self, indices) -> list[dict]:
        return [{"length": int(self.lengths[i])} for i in indices]


class Ids:
    """A task whose batches hold nothing but the numbers of the rows."""

    def collate(self, examples, draw) -> Batch:
        ids = torch.tensor([example["id"] for example in examples])
        return Batch({}, {}, ids, ids, float(len(examples)))


def plan_of(split: Rows, **changes) -> TrainPlan:
    values = {**yaml.safe_load(CONFIG.read_text(encoding="utf-8")), **changes}
    return TrainPlan(split.lengths, TrainingConfig.model_validate_json(json.dumps(values)), seed=0)


def met(plan, split, *, size, parts, start=0, stop=None, num_workers=0) -> dict[int, Counter]:
    """How often the ranks together meet each row in each epoch, rows of weight zero left out."""
    found: dict[int, Counter] = {}
    num_windows = set()
    for rank in range(size):
        how = {"seed": 0, "num_micro_batches": parts, "ranks": SimpleNamespace(rank=rank, size=size)}
        mine = windows(plan, split, Ids(), start=start, num_workers=num_workers, pin_memory=False, **how)
        mine = [one for one in mine if stop is None or one.step < stop]
        num_windows.add(len(mine))
        for one in mine:
            assert len(one.batches) == parts, "each rank calls the others as often as they call it"
            for batch in one.batches:
                assert batch.num_targets in (0, len(batch.example_ids))
                if batch.num_targets:
                    found.setdefault(one.epoch, Counter()).update(batch.example_ids.tolist())
    assert len(num_windows) == 1
    return found


cut = st.fixed_dictionaries({"size": st.integers(1, 5), "parts": st.integers(1, 4)})


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    batch_size=st.integers(1, 20),
    max_tokens=st.sampled_from([None, 1, 50, 300]),
    by_length=st.booleans(),
    epochs=st.sampled_from([1, 2, 1.5]),
    before=cut,
    after=cut,
    share=st.floats(0, 1),
)
def test_each_row_once_in_an_epoch(lengths, batch_size, max_tokens, by_length, epochs, before, after, share):
    """Whatever the sizes, and after a resume at any step, even with another number of ranks and micro-batches."""
    split = Rows(lengths)
    rule = {"batch_size": batch_size, "max_tokens_per_batch": max_tokens, "group_by_length": by_length}
    plan, resumed = (plan_of(split, epochs=epochs, **rule) for _ in range(2))
    step = round(share * plan.total_steps)
    first, second = met(plan, split, stop=step, **before), met(resumed, split, start=step, **after)
    for epoch in range(int(np.ceil(epochs))):
        counts = first.get(epoch, Counter()) + second.get(epoch, Counter())
        assert set(counts.values()) == {1}
        assert len(counts) == len(lengths) or epoch + 1 > epochs


@pytest.mark.parametrize(("size", "parts", "start"), [(1, 1, 0), (2, 3, 0), (2, 1, 5), (3, 2, 3)])
def test_loader_processes_lose_and_repeat_nothing(size: int, parts: int, start: int):
    split = Rows(np.random.default_rng(0).integers(1, 30, 47).tolist())
    plan = plan_of(split, epochs=2, batch_size=7)
    assert met(plan, split, size=size, parts=parts, start=start, num_workers=3) == met(
        plan, split, size=size, parts=parts, start=start
    )
    assert met(plan, split, size=size, parts=parts, num_workers=2)[1] == Counter(range(47))


def test_a_single_window_is_that_of_the_whole_run():
    split = Rows(np.random.default_rng(0).integers(1, 30, 20).tolist())
    plan = plan_of(split, epochs=1, batch_size=6)
    how = {"seed": 0, "num_micro_batches": 2, "ranks": SimpleNamespace(rank=1, size=2)}
    for one in windows(plan, split, Ids(), start=0, num_workers=0, pin_memory=False, **how):
        planned = next(plan.steps(one.step))
        alone = window(planned, split, Ids(), **how)
        assert [b.example_ids.tolist() for b in alone.batches] == [b.example_ids.tolist() for b in one.batches]
