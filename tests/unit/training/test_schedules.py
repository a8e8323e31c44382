"""Schedules against those of transformers, which are written independently."""

import pytest
import torch

from llmtune.config.sections.schedule import ConstantSchedule, CosineSchedule, LinearSchedule
from llmtune.errors import ConfigError
from llmtune.training import schedules

STEPS = 50


def reference(name: str, warmup: int) -> list[float]:
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS)
    rates = []
    for _ in range(STEPS + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("linear", LinearSchedule(type="linear", warmup_ratio=0.2, warmup_steps=None, min_lr_ratio=0.0)),
        ("cosine", CosineSchedule(type="cosine", warmup_ratio=0.0, warmup_steps=10, min_lr_ratio=0.0)),
        ("constant_with_warmup", ConstantSchedule(type="constant", warmup_ratio=0.2, warmup_steps=None)),
    ],
)
def test_follows_the_reference(name, section):
    factor = schedules.build(section, total_steps=STEPS)
    expected = reference(name, warmup=10)
    # The reference's first step has rate 0 and is lost; ours starts one further up the ramp and meets it at the top.
    assert [factor(s) for s in range(9)] == pytest.approx(expected[1:10])
    assert [factor(s) for s in range(10, STEPS)] == pytest.approx(expected[10:STEPS])


@pytest.mark.parametrize("kind", [LinearSchedule, CosineSchedule])
def test_ends_at_its_lowest_rate(kind):
    name = "linear" if kind is LinearSchedule else "cosine"
    factor = schedules.build(kind(type=name, warmup_ratio=0.0, warmup_steps=None, min_lr_ratio=0.1), total_steps=STEPS)
    assert factor(0) == 1.0
    assert factor(STEPS) == pytest.approx(0.1)


def test_refuses_a_warm_up_longer_than_the_run():
    section = ConstantSchedule(type="constant", warmup_ratio=0.0, warmup_steps=51)
    with pytest.raises(ConfigError, match=r"schedule.warmup_steps.*longer than the run \(50 steps\)"):
        schedules.build(section, total_steps=STEPS)
