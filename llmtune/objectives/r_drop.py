"""Two passes under other dropout, whose answers are drawn together. Liang et al. 2021: https://arxiv.org/abs/2106.14448

B: rows, C: classes.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmtune.errors import ModelError
from llmtune.tasks.base import Batch, LossOf, LossTerms, Task

# What a config calls dropout for which a model may have no layer: within attention, and in our LSTM.
WITHOUT_LAYER = ("attention_dropout", "attention_probs_dropout_prob", "dropout", "recurrent_dropout")


def r_drop(task: Task, model: nn.Module, *, alpha: float) -> LossOf:
    """Half of the paper's loss, L1 + L2 + alpha * (KL(1|2) + KL(2|1)) / 2, so that its scale is that of a single pass.

    A regression has no distributions: there the distance is half the squared difference of the two answers.

    Raises:
        ModelError: the model has no dropout.
    """
    if not has_dropout(model):
        remedy = "set model.dropout, or tuning.dropout of tuning=lora, or leave out objective=r_drop"
        raise ModelError("the model has no dropout, so that both passes of r_drop would answer the same", remedy=remedy)
    return partial(_loss, task, alpha)


def has_dropout(model: nn.Module) -> bool:
    """Whether two passes in training differ: by a layer that drops, or where none is needed for it, as the config says."""
    layers = any(module.p for module in model.modules() if isinstance(module, nn.Dropout))
    return layers or any(getattr(model.config, name, 0.0) for name in WITHOUT_LAYER)


def _loss(task: Task, alpha: float, model: nn.Module, batch: Batch) -> LossTerms:
    # Both passes as one batch, as the paper has it; each row has a dropout mask of its own.
    logits_2BC = model(**{name: torch.cat([t, t]) for name, t in batch.inputs.items()}).logits.float()
    targets = {name: torch.cat([t, t]) for name, t in batch.targets.items()}
    loss = task.losses(logits_2BC, targets).sum() / 2
    one, other = logits_2BC.chunk(2)
    distances_B = difference(one, other) if task.type == "regression" else divergence(one, other)
    apart = alpha / 2 * distances_B.sum()
    return LossTerms(loss + apart, {"task": loss.detach(), "r_drop": apart.detach()})


def divergence(one_BC: Tensor, other_BC: Tensor) -> Tensor:
    """Half the sum of both Kullback-Leibler divergences between the distributions of two logits, [B]."""
    one, other = one_BC.log_softmax(-1), other_BC.log_softmax(-1)
    both = F.kl_div(one, other, log_target=True, reduction="none") + F.kl_div(other, one, log_target=True, reduction="none")
    return both.sum(-1) / 2


def difference(one_B1: Tensor, other_B1: Tensor) -> Tensor:
    """Half the squared difference of two answers, [B]."""
    return (one_B1 - other_B1).square().sum(-1) / 2
