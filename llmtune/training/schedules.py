"""The learning rate as a function of the step: nothing to save, nothing to replay."""

import math
from collections.abc import Callable

from llmtune.config.sections.schedule import OneCycleSchedule, ScheduleConfig
from llmtune.errors import ConfigError

# The share of the way down that is left after a part of it, both from 0 to 1.
FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "one_minus_sqrt": lambda done: 1 - math.sqrt(done),
}


def build(schedule: ScheduleConfig, *, total_steps: int) -> Callable[[int], float]:
    """The share of the highest rate at each step from 0.

    Raises:
        ConfigError: warm-up and decay together are longer than the run.
    """
    if isinstance(schedule, OneCycleSchedule):
        return _one_cycle(schedule, total_steps)
    warmup = schedule.warmup_steps
    if warmup is None:
        warmup = round(schedule.warmup_ratio * total_steps)
    if warmup > total_steps:
        raise ConfigError([f"schedule.warmup_steps: the warm-up ({warmup} steps) is longer than the run ({total_steps} steps)"])
    after_warmup = _after_warmup(schedule, warmup, total_steps)
    return lambda step: (step + 1) / warmup if step < warmup else after_warmup(step)


def _after_warmup(schedule: ScheduleConfig, warmup: int, total_steps: int) -> Callable[[int], float]:
    falling = max(1, total_steps - warmup)

    def done(step: int) -> float:
        return min(1.0, (step - warmup) / falling)

    match schedule.type:
        case "constant":
            return lambda step: 1.0
        case "linear" | "cosine":
            return lambda step: _down_to(schedule.min_lr_ratio, FALLS[schedule.type](done(step)))
        case "cosine_restarts":
            # The end of the run is the end of a cycle, not the beginning of another one.
            within = lambda step: done(step) * schedule.num_cycles % 1.0 if done(step) < 1 else 1.0  # noqa: E731
            return lambda step: _down_to(schedule.min_lr_ratio, FALLS["cosine"](within(step)))
        case "polynomial":
            return lambda step: _down_to(schedule.min_lr_ratio, (1 - done(step)) ** schedule.power)
        case "inverse_sqrt":
            timescale = schedule.timescale or max(1, warmup)
            return lambda step: math.sqrt(timescale / (step - warmup + timescale))
        case "wsd":
            return _wsd(schedule, warmup, total_steps)


def _wsd(schedule: ScheduleConfig, warmup: int, total_steps: int) -> Callable[[int], float]:
    decay = max(1, round(schedule.decay_ratio * total_steps))
    start = total_steps - decay
    if start < warmup < total_steps:
        raise ConfigError(
            [
                f"schedule.decay_ratio: warm-up ({warmup} steps) and decay ({decay} steps) together are longer than the run "
                f"({total_steps} steps)"
            ]
        )
    return lambda step: _down_to(schedule.min_lr_ratio, FALLS[schedule.shape](min(1.0, max(0, step - start) / decay)))


def _one_cycle(schedule: OneCycleSchedule, total_steps: int) -> Callable[[int], float]:
    """The top is the last step of the rise, and the lowest rate the last step of the run."""
    top = max(0.0, schedule.rise_ratio * total_steps - 1)
    falling = max(1.0, total_steps - 1 - top)

    def factor(step: int) -> float:
        if step < top:
            return _down_to(schedule.start_lr_ratio, FALLS["cosine"](1 - step / top))
        return _down_to(schedule.min_lr_ratio, FALLS["cosine"](min(1.0, (step - top) / falling)))

    return factor


def _down_to(lowest: float, left: float) -> float:
    return lowest + (1 - lowest) * left
