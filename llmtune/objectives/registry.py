"""The table of objectives, and how they stand around the loss of a task: a pass through the model, then penalties."""

from collections.abc import Callable

from torch import nn

from llmtune.config.sections.augment import AugmentConfig
from llmtune.config.sections.augment_model import VectorAugment
from llmtune.config.sections.objective import LabelSmoothing, ObjectiveConfig
from llmtune.objectives import adversarial, mixup, penalties, r_drop
from llmtune.objectives.smoothing import smoothed
from llmtune.tasks.base import LossOf, Task

# How the model is run for a micro-batch, of task, model and settings; the config allows one of them.
PASSES: dict[str, Callable[..., LossOf]] = {
    "mixup": mixup.mixed_answers,
    "word_mixup": mixup.mixed_words,
    "fgm": adversarial.fgm,
    "r_drop": r_drop.r_drop,
}
# What is added to a loss, of loss, model and settings.
PENALTIES: dict[str, Callable[..., LossOf]] = {
    "l1": penalties.l1,
    "l2": penalties.l2,
}


def build(task: Task, model: nn.Module, *, augment: dict[str, AugmentConfig], objective: dict[str, ObjectiveConfig]) -> LossOf:
    """The loss that a config asks for; without objectives the task's own.

    Args:
        task: of the rows; with label smoothing its criterion is exchanged, which training alone reads.
        model: opened for tuning, as it will train: before it is compiled or wrapped for several ranks, after word vectors are
            exchanged.
        augment: of which those count that change vectors.
        objective: all of them count.

    Raises:
        ModelError: the model has no word vectors that could be changed.
    """
    sections = [*(s for s in augment.values() if isinstance(s, VectorAugment)), *objective.values()]
    for section in sections:
        if isinstance(section, LabelSmoothing):
            task.criterion = smoothed(task.criterion, smoothing=section.smoothing)
    loss_of: LossOf = task.loss
    for section in sections:
        if section.type in PASSES:
            loss_of = PASSES[section.type](task, model, **section.model_dump(exclude={"type"}))
    for section in sections:
        if section.type in PENALTIES:
            loss_of = PENALTIES[section.type](loss_of, model, **section.model_dump(exclude={"type"}))
    return loss_of
