"""Penalties on the size of the weights that learn.

The loss is a sum over targets, divided by the number of targets of the whole window: each micro-batch adds the penalty times
its own number of targets, so that it counts once in a step, however the step is cut.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from llmtune.tasks.base import Batch, LossOf, LossTerms


def l1(loss_of: LossOf, model: nn.Module, *, strength: float) -> LossOf:
    """Adds strength * sum |w|. Tibshirani 1996."""
    return partial(_penalized, loss_of, _weights(model), "l1", lambda w: strength * w.abs().sum())


def l2(loss_of: LossOf, model: nn.Module, *, strength: float) -> LossOf:
    """Adds strength * sum w^2."""
    return partial(_penalized, loss_of, _weights(model), "l2", lambda w: strength * w.square().sum())


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """Matrices alone, as with weight decay (`training/optimizers.py`)."""
    return [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]


def _penalized(
    loss_of: LossOf, weights: list[nn.Parameter], name: str, size: Callable[[Tensor], Tensor], model: nn.Module, batch: Batch
) -> LossTerms:
    terms = loss_of(model, batch)
    penalty = torch.stack([size(w) for w in weights]).sum() * batch.num_targets
    parts = {"task": terms.sum.detach(), **terms.parts, name: penalty.detach()}
    return LossTerms(terms.sum + penalty, parts)
