"""How train rows are changed at random, anew in every epoch."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.augment_model import ModelAugment
from llmtune.config.sections.base import Fraction, Section


class DropWords(Section):
    """Leaves out words at random. Wei and Zou 2019 (EDA), random deletion."""

    type: Literal["drop"]
    rate: Fraction
    """Probability that a word is left out."""


class SwapWords(Section):
    """Exchanges words at random. Wei and Zou 2019 (EDA), random swap."""

    type: Literal["swap"]
    rate: Fraction
    """Number of exchanges as a share of the number of words."""


AugmentConfig = Annotated[DropWords | SwapWords | ModelAugment, Field(discriminator="type")]
