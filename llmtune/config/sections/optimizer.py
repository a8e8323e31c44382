"""The rule that turns gradients into steps."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Fraction, NonNegative, Positive, Section


class OptimizerSection(Section):
    """What every optimizer has."""

    lr: Positive
    """Highest learning rate."""
    weight_decay: NonNegative
    """Decay of weight matrices; biases, norms, and vectors of tokens that the train rows lack are spared."""


class MomentsSection(OptimizerSection):
    """What the relatives of Adam have."""

    beta1: Fraction
    """Decay of the mean of the gradient."""
    beta2: Fraction
    """Decay of the mean of its square."""
    eps: Positive
    """Added to the denominator."""


class AdamW(MomentsSection):
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019."""

    type: Literal["adamw"]


class Sgd(OptimizerSection):
    """Stochastic gradient descent with momentum."""

    type: Literal["sgd"]
    weight_decay: NonNegative
    """L2 penalty of weight matrices; biases, norms, and vectors of tokens that the train rows lack are spared."""
    momentum: Fraction
    """Share of the last step that is kept."""
    nesterov: bool
    """Whether the gradient is taken after the momentum."""


class Adafactor(OptimizerSection):
    """Second moments as a row and a column of each matrix: next to no memory. Shazeer and Stern 2018."""

    type: Literal["adafactor"]
    lr: Positive
    """Largest step as a share of a weight matrix's own size; from step 1 / lr² on, 1 / sqrt(step) is smaller and counts."""
    weight_decay: NonNegative
    """Decay of weight matrices; biases and norms are spared."""
    beta2_decay: Annotated[float, Field(ge=-1, lt=0)]
    """Exponent: at step t the mean of the gradient's square keeps 1 - t^beta2_decay of itself."""
    clip_threshold: Annotated[float, Field(ge=1)]
    """A matrix's step is scaled down to this root mean square."""


class Lion(OptimizerSection):
    """The sign of the momentum as step; wants a third to a tenth of AdamW's rate. Chen et al. 2023."""

    type: Literal["lion"]
    beta1: Fraction
    """Share of the momentum in the step, beside that of the gradient."""
    beta2: Fraction
    """Decay of the momentum."""


class Muon(MomentsSection):
    """Steps of hidden matrices made orthogonal, AdamW for all else; rates are AdamW's. Jordan 2024, Liu et al. 2025."""

    type: Literal["muon"]
    momentum: Fraction
    """Decay of the momentum of hidden matrices; beta1, beta2 and eps are those of everything else."""
    nesterov: bool
    """Whether the gradient is taken after the momentum."""


class ScheduleFree(MomentsSection):
    """AdamW that averages its weights instead of lowering its rate. Defazio et al. 2024."""

    type: Literal["schedule_free"]
    beta1: Annotated[float, Field(gt=0, lt=1)]
    """Where gradients are taken: at this share of the average, and the rest of the newest weights."""


OptimizerConfig = Annotated[AdamW | Sgd | Adafactor | Lion | Muon | ScheduleFree, Field(discriminator="type")]
