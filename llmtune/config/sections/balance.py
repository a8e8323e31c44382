"""What is done about classes of unlike size: which rows stand in an epoch, how the loss counts them, how one decides."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Fraction, Name, NonNegative, Positive, Section

Share = Annotated[float, Field(gt=0, le=1)]


class OverSampling(Section):
    """Rows of the smaller classes stand in each epoch several times."""

    type: Literal["oversample"]
    ratio: Share
    """Smaller classes are brought to this share of the rows of the largest."""


class UnderSampling(Section):
    """A part of the rows of the larger classes stands in each epoch, in every epoch another one."""

    type: Literal["undersample"]
    ratio: Share
    """Larger classes are cut until the rows of the smallest are this share of theirs."""


class TemperatureSampling(Section):
    """Classes in proportion to rows^(1/temperature), as many rows in all as there are. Conneau and Lample 2019 (XLM)."""

    type: Literal["temperature"]
    temperature: Annotated[float, Field(ge=1)]
    """1: as the rows are; 2: the square root; the higher, the more equal the classes."""


class InverseFrequency(Section):
    """The loss of a row counts as much as its class is rare."""

    type: Literal["inverse_frequency"]


class EffectiveNumber(Section):
    """The loss of a row counts by the effective number of its class's rows. Cui et al. 2019."""

    type: Literal["effective_number"]
    beta: Fraction
    """Near 1: like inverse_frequency; 0: all rows count alike."""


class ClassWeights(Section):
    """The loss of a row counts as much as you say."""

    type: Literal["class_weights"]
    by_label: Annotated[dict[Name, Positive], Field(min_length=1)] | None
    """Weight of each label, such as {spam: 5}; labels that are not named weigh 1, and only ratios matter."""


class Focal(Section):
    """Rows that are right already count little. Lin et al. 2017 (focal loss)."""

    type: Literal["focal"]
    gamma: NonNegative
    """A row of which the model is p sure counts (1 - p)^gamma."""


class LogitAdjustment(Section):
    """The loss adds the log of each class's share to its logit, so that the model learns what is left. Menon et al. 2021."""

    type: Literal["logit_adjustment"]
    tau: Positive
    """Factor of the log share; 1: the balanced error is made small."""


class Threshold(Section):
    """After training, each class's log-probability gets the bias that is best on the validation rows."""

    type: Literal["threshold"]
    metric: Literal["f1_minority", "f1_macro"] | None
    """What the bias makes large; null: f1_minority for two classes, else f1_macro."""


Sampling = OverSampling | UnderSampling | TemperatureSampling
BalanceConfig = Annotated[
    Sampling | InverseFrequency | EffectiveNumber | ClassWeights | Focal | LogitAdjustment | Threshold,
    Field(discriminator="type"),
]
CLASSIFIERS = ("classification", "multilabel")  # tasks that it is for
# Of the types of one row a config may hold one: they correct for the same thing.
EXCLUSIVE = (
    ("oversample", "undersample", "temperature"),
    ("inverse_frequency", "effective_number", "class_weights", "logit_adjustment"),
    ("focal",),
    ("threshold",),
)
