"""Schedules against those of transformers, which are written independently."""

import pytest
import torch

from llmtune.config.sections.schedule import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    InverseSqrtSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PolynomialSchedule,
    WsdSchedule,
)
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


def of_torch(name: str, **how) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **how)
    rates = []
    for step in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < STEPS - 1:
            scheduler.step()
    return rates


def of_transformers(name: str, **how) -> list[float]:
    import transformers

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return [getattr(transformers, name)(optimizer, num_warmup_steps=10, **how).lr_lambdas[0](step) for step in range(STEPS)]


WARMUP = {"warmup_ratio": 0.2, "warmup_steps": None}


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_polynomial_is_that_of_transformers(power: float):
    section = PolynomialSchedule(type="polynomial", **WARMUP, min_lr_ratio=0.1, power=power)
    how = {"num_training_steps": STEPS, "lr_end": 0.1, "power": power}
    expected = of_transformers("get_polynomial_decay_schedule_with_warmup", **how)
    factor = schedules.build(section, total_steps=STEPS)
    assert [factor(s) for s in range(10, STEPS)] == pytest.approx(expected[10:])


@pytest.mark.parametrize("cycles", [1, 3])
def test_cosine_restarts_are_those_of_transformers(cycles: int):
    section = CosineRestartsSchedule(type="cosine_restarts", **WARMUP, min_lr_ratio=0.0, num_cycles=cycles)
    how = {"num_training_steps": STEPS, "num_cycles": cycles}
    expected = of_transformers("get_cosine_with_hard_restarts_schedule_with_warmup", **how)
    factor = schedules.build(section, total_steps=STEPS)
    assert [factor(s) for s in range(10, STEPS)] == pytest.approx(expected[10:])
    assert factor(STEPS) == 0.0, "the end of the run begins another cycle"


@pytest.mark.parametrize("timescale", [None, 25])
def test_inverse_sqrt_is_that_of_transformers(timescale: int | None):
    section = InverseSqrtSchedule(type="inverse_sqrt", **WARMUP, timescale=timescale)
    expected = of_transformers("get_inverse_sqrt_schedule", timescale=timescale)
    factor = schedules.build(section, total_steps=STEPS)
    assert [factor(s) for s in range(10, STEPS)] == pytest.approx(expected[10:])
    assert factor(10 + (timescale or 10)) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize("shape", ["linear", "cosine", "one_minus_sqrt"])
def test_wsd_is_that_of_transformers(shape: str):
    section = WsdSchedule(type="wsd", **WARMUP, min_lr_ratio=0.1, decay_ratio=0.3, shape=shape)
    how = {"num_decay_steps": 15, "num_training_steps": STEPS, "min_lr_ratio": 0.1}
    expected = of_transformers("get_wsd_schedule", decay_type=shape.replace("one_minus_", "1-"), **how)
    factor = schedules.build(section, total_steps=STEPS)
    assert [factor(s) for s in range(10, STEPS)] == pytest.approx(expected[10:])
    assert factor(STEPS) == pytest.approx(0.1)


def test_one_cycle_is_that_of_torch():
    section = OneCycleSchedule(type="one_cycle", rise_ratio=0.3, start_lr_ratio=1 / 25, min_lr_ratio=1 / 25e4)
    factor = schedules.build(section, total_steps=STEPS)
    expected = of_torch("OneCycleLR", max_lr=1.0, total_steps=STEPS, pct_start=0.3)
    assert [factor(s) for s in range(STEPS)] == pytest.approx(expected, abs=1e-9)


SECTIONS = {
    "polynomial": PolynomialSchedule(type="polynomial", **WARMUP, min_lr_ratio=0.0, power=2.0),
    "cosine_restarts": CosineRestartsSchedule(type="cosine_restarts", **WARMUP, min_lr_ratio=0.0, num_cycles=4),
    "inverse_sqrt": InverseSqrtSchedule(type="inverse_sqrt", **WARMUP, timescale=None),
    "wsd": WsdSchedule(type="wsd", **WARMUP, min_lr_ratio=0.0, decay_ratio=0.2, shape="linear"),
    "one_cycle": OneCycleSchedule(type="one_cycle", rise_ratio=0.3, start_lr_ratio=0.0, min_lr_ratio=0.0),
}


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 7, 1000])
def test_every_run_has_rates_between_nothing_and_the_top(name: str, total_steps: int):
    factor = schedules.build(SECTIONS[name], total_steps=total_steps)
    rates = [factor(step) for step in range(total_steps + 1)]
    assert all(0 <= rate <= 1 for rate in rates) and max(rates) > 0


def test_refuses_a_decay_that_does_not_fit_beside_the_warm_up():
    section = WsdSchedule(type="wsd", warmup_ratio=0.0, warmup_steps=45, min_lr_ratio=0.0, decay_ratio=0.2, shape="linear")
    with pytest.raises(ConfigError, match=r"schedule.decay_ratio: warm-up \(45 steps\) and decay \(10 steps\)"):
        schedules.build(section, total_steps=STEPS)
