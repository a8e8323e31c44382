"""What training makes small besides the loss of the task."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Positive, Section


class L1Penalty(Section):
    """Adds strength times the sum of the weights' absolute values: many of them become tiny. Tibshirani 1996."""

    type: Literal["l1"]
    strength: Positive
    """Factor of the sum over the weights that learn; biases and norms are spared."""


class L2Penalty(Section):
    """Adds strength times the sum of the weights' squares; with adamw, optimizer.weight_decay is the usual way."""

    type: Literal["l2"]
    strength: Positive
    """Factor of the sum over the weights that learn; biases and norms are spared."""


class LabelSmoothing(Section):
    """The target is the class of the row and, to a small part, every class. Szegedy et al. 2016."""

    type: Literal["label_smoothing"]
    smoothing: Annotated[float, Field(gt=0, lt=1)]
    """Share of the target that all classes have in equal parts."""


class RDrop(Section):
    """Runs each row twice under other dropout and draws the two answers together. Liang et al. 2021."""

    type: Literal["r_drop"]
    alpha: Positive
    """Weight of the distance between the answers: symmetric KL divergence, or in a regression half their squared difference."""


ObjectiveConfig = Annotated[L1Penalty | L2Penalty | LabelSmoothing | RDrop, Field(discriminator="type")]
