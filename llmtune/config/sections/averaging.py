"""Which weights are judged and kept: the newest, or a mean of them."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Section


class NoAveraging(Section):
    """The newest weights are evaluated and saved."""

    type: Literal["none"]


class Ema(Section):
    """The exponential moving average of the weights. Polyak and Juditsky 1992, Tarvainen and Valpola 2017."""

    type: Literal["ema"]
    decay: Fraction
    """Share of the average that a step keeps: 0.999 looks back over a thousand steps."""
    warmup: bool
    """Whether the decay rises with the number n of steps, as (1 + n) / (10 + n), until it gets there: for short runs."""


class Swa(Section):
    """The plain mean of the weights from a place in the run on. Izmailov et al. 2018."""

    type: Literal["swa"]
    start_ratio: Fraction
    """Share of the steps before the first weights that count; until then the newest ones are judged and kept."""
    every: Count
    """Steps between two weights that count; with schedule=cosine_restarts the steps of a cycle."""


AveragingConfig = Annotated[NoAveraging | Ema | Swa, Field(discriminator="type")]
