"""The loss of a row of a classification, and how it treats classes of unlike size. B: rows, C: classes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmtune.config.sections.balance import (
    BalanceConfig,
    ClassWeights,
    EffectiveNumber,
    Focal,
    InverseFrequency,
    LogitAdjustment,
)

Criterion = Callable[[Tensor, Tensor], Tensor]  # losses [B] of logits [B, C] and labels [B]


def cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    return F.cross_entropy(logits_BC, labels_B, reduction="none")


class BalancedCrossEntropy:
    """Cross entropy of which rows count by their class, or by how wrong they are.

    Args:
        weights_C: a row's loss is multiplied by that of its label (Lin's alpha).
        gamma: a row whose label has probability p counts (1 - p)^gamma. Lin et al. 2017: https://arxiv.org/abs/1708.02002
        shifts_C: are added to the logits. Menon et al. 2021: https://arxiv.org/abs/2007.07314
    """

    def __init__(self, *, weights_C: Tensor | None = None, gamma: float = 0.0, shifts_C: Tensor | None = None):
        self.weights_C, self.gamma, self.shifts_C = weights_C, gamma, shifts_C

    def __call__(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        if self.shifts_C is not None:
            logits_BC = logits_BC + self.shifts_C.to(logits_BC.device)
        losses_B = cross_entropy(logits_BC, labels_B)
        if self.gamma:
            # 1 - p, whose power below 1 has no finite slope where it is zero
            wrong_B = -torch.expm1(-losses_B)
            losses_B = wrong_B.clamp_min(torch.finfo(losses_B.dtype).tiny) ** self.gamma * losses_B
        return losses_B if self.weights_C is None else losses_B * self.weights_C.to(logits_BC.device)[labels_B]


def build(balance: dict[str, BalanceConfig], *, counts_C: np.ndarray, weights_by_label: Sequence[float]) -> Criterion:
    """The criterion that all entries together ask for.

    The loss of a step is the plain mean over its rows. Weights are scaled so that their mean over an epoch is 1: the learning
    rate keeps its meaning, and no cut into steps, micro-batches or ranks changes what a row counts.

    Args:
        balance: samplers and thresholds are passed over.
        counts_C: rows of each class in an epoch.
        weights_by_label: those given by hand.
    """
    weights_C = shifts_C = None
    gamma = 0.0
    present_C = np.maximum(counts_C, 1)  # a class without rows never has a loss
    for section in balance.values():
        match section:
            case InverseFrequency():
                weights_C = 1 / present_C
            case EffectiveNumber():
                weights_C = effective_weights(present_C, beta=section.beta)
            case ClassWeights():
                weights_C = np.asarray(weights_by_label, dtype=np.float64)
            case Focal():
                gamma = section.gamma
            case LogitAdjustment():
                shifts_C = section.tau * np.log(present_C / present_C.sum())
    if weights_C is None and shifts_C is None and not gamma:
        return cross_entropy
    if weights_C is not None:
        weights_C = weights_C * counts_C.sum() / (weights_C * counts_C).sum()
    return BalancedCrossEntropy(weights_C=_tensor(weights_C), gamma=gamma, shifts_C=_tensor(shifts_C))


def effective_weights(counts_C: np.ndarray, *, beta: float) -> np.ndarray:
    """1 / E with E = (1 - beta^n) / (1 - beta), the effective number of n rows. Cui et al. 2019: arxiv.org/abs/1901.05555"""
    return (1 - beta) / -np.expm1(counts_C * np.log(beta)) if beta else np.ones(len(counts_C))


def _tensor(values: np.ndarray | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)
