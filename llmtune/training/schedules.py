"""The learning rate as a function of the step: nothing to save, nothing to replay."""

import math
from collections.abc import Callable

from llmtune.config.sections.training import ScheduleConfig
from llmtune.errors import ConfigError


def build(schedule: ScheduleConfig, *, total_steps: int) -> Callable[[int], float]:
    """The share of the highest rate at each step from 0.

    Raises:
        ConfigError: the warm-up is longer than the run.
    """
    warmup = schedule.warmup_steps
    if warmup is None:
        warmup = round(schedule.warmup_ratio * total_steps)
    if warmup > total_steps:
        raise ConfigError([f"schedule.warmup_steps: the warm-up ({warmup} steps) is longer than the run ({total_steps} steps)"])
    falling = max(1, total_steps - warmup)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / falling)
        if schedule.type == "linear":
            return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * (1 - progress)
        if schedule.type == "cosine":
            return schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0

    return factor
