"""How rows are set aside for validation and test."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Fraction, Section


class SplitSection(Section):
    """How rows are set aside when the data names no validation or test rows of its own."""

    validation_fraction: Fraction
    """Share of the rows set aside for validation if none are given."""
    test_fraction: Fraction
    """Share of the rows set aside for the test if none are given."""


class RandomSplit(SplitSection):
    """Drawn at random with the seed."""

    type: Literal["random"]


class StratifiedSplit(SplitSection):
    """Drawn at random with the seed, each class in the same proportion; without classes like random."""

    type: Literal["stratified"]


class ContiguousSplit(SplitSection):
    """The last rows in file order: running text, time series."""

    type: Literal["contiguous"]


SplitConfig = Annotated[RandomSplit | StratifiedSplit | ContiguousSplit, Field(discriminator="type")]
