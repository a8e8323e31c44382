"""How rows are set aside for validation and test."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Name, Section


class SplitSection(Section):
    """How rows are set aside when the data names no test rows of its own."""

    test_fraction: Fraction
    """Share of the rows set aside for the test if none are given."""


class HoldoutSplit(SplitSection):
    """One part of the rows for validation, one for the test."""

    validation_fraction: Fraction
    """Share of the rows set aside for validation if none are given."""


class RandomSplit(HoldoutSplit):
    """Drawn at random with the seed."""

    type: Literal["random"]


class StratifiedSplit(HoldoutSplit):
    """Drawn at random with the seed, each class in the same proportion; without classes like random."""

    type: Literal["stratified"]


class ContiguousSplit(HoldoutSplit):
    """The last rows in file order: running text, time series."""

    type: Literal["contiguous"]


class GroupedSplit(HoldoutSplit):
    """Whole groups, such as all rows of one author: none stands on two sides; classes are balanced as far as possible."""

    type: Literal["grouped"]
    group_column: Name
    """Column that names the group of a row."""


class TimeSplit(HoldoutSplit):
    """The newest rows are the test, those before them validation; rows of one time stay together."""

    type: Literal["time"]
    time_column: Name
    """Column with the time of a row: ISO dates, with or without a time of day, or numbers."""
    time_format: Name | None
    """Form of other dates in the signs of strptime, such as %d.%m.%Y; null: ISO dates or numbers."""


class KFoldSplit(SplitSection):
    """Cross-validation: one run for each fold, which is its validation rows; each row is in exactly one fold."""

    type: Literal["kfold"]
    num_folds: Annotated[int, Field(ge=2, le=1000)]
    """Parts that the rows are divided into."""
    fold: Count | None
    """Run this fold alone, from 1; null: all, one after another, and a table at the end."""
    stratify: bool
    """Whether each class has the same share in every fold; without classes it has no effect."""
    group_column: Name | None
    """Column that names the group of a row: no group is divided; null: each row stands for itself."""


SplitConfig = Annotated[
    RandomSplit | StratifiedSplit | ContiguousSplit | GroupedSplit | TimeSplit | KFoldSplit, Field(discriminator="type")
]
