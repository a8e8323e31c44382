"""The learning rate over the run, as a share of the highest."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Positive, Section

Share = Annotated[float, Field(ge=0, le=1)]


class WarmupSection(Section):
    """What every schedule has but one_cycle."""

    warmup_ratio: Fraction
    """Share of the steps over which the rate rises linearly from 0."""
    warmup_steps: Annotated[int, Field(ge=0)] | None
    """The same as a number of steps; null: warmup_ratio decides."""


class ConstantSchedule(WarmupSection):
    """The rate stays as it is."""

    type: Literal["constant"]


class DecaySection(WarmupSection):
    """What every falling schedule has."""

    min_lr_ratio: Share
    """The rate at the end, as a share of the highest."""


class LinearSchedule(DecaySection):
    """The rate falls in a straight line."""

    type: Literal["linear"]


class CosineSchedule(DecaySection):
    """The rate falls along half a cosine. Loshchilov and Hutter 2017."""

    type: Literal["cosine"]


class CosineRestartsSchedule(DecaySection):
    """The rate falls along half a cosine several times, each time from the top. Loshchilov and Hutter 2017."""

    type: Literal["cosine_restarts"]
    num_cycles: Count
    """How often it falls; all cycles are equally long."""


class PolynomialSchedule(DecaySection):
    """The rate falls as a power of the steps that are left."""

    type: Literal["polynomial"]
    power: Positive
    """1: a straight line; more: fast at first."""


class InverseSqrtSchedule(WarmupSection):
    """The rate falls as 1 / sqrt(step), for runs whose end is open. Vaswani et al. 2017."""

    type: Literal["inverse_sqrt"]
    timescale: Count | None
    """Steps after the warm-up at which the rate has fallen to 0.71 of the top; null: as many as the warm-up has."""


class WsdSchedule(DecaySection):
    """Warm-up, a long stable part, and a short decay at the end. Hu et al. 2024, Hägele et al. 2024."""

    type: Literal["wsd"]
    decay_ratio: Annotated[float, Field(gt=0, le=1)]
    """Share of the steps over which the rate falls at the end."""
    shape: Literal["one_minus_sqrt", "linear", "cosine"]
    """How it falls: as 1 - sqrt of the part of the decay that is done, in a straight line, or along half a cosine."""


class OneCycleSchedule(Section):
    """The rate rises and falls once, along half cosines. Smith and Topin 2018; momentum stays as it is."""

    type: Literal["one_cycle"]
    rise_ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the steps over which the rate rises."""
    start_lr_ratio: Share
    """The rate at the start, as a share of the highest."""
    min_lr_ratio: Share
    """The rate at the end, as a share of the highest."""


ScheduleConfig = Annotated[
    ConstantSchedule
    | LinearSchedule
    | CosineSchedule
    | CosineRestartsSchedule
    | PolynomialSchedule
    | InverseSqrtSchedule
    | WsdSchedule
    | OneCycleSchedule,
    Field(discriminator="type"),
]
