"""The loss of a row, and how it treats classes or labels of unlike size. B: rows, C: classes, or labels of several."""

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

Criterion = Callable[[Tensor, Tensor], Tensor]  # losses [B] of logits [B, C], and of labels [B], or ones and zeros [B, C]


def cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    return F.cross_entropy(logits_BC, labels_B, reduction="none")


def binary_cross_entropy(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """That of the mean label, of a row that may have several."""
    return F.binary_cross_entropy_with_logits(logits_BC, labels_BC, reduction="none").mean(-1)


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
        losses_B = _focused(losses_B, self.gamma)
        return losses_B if self.weights_C is None else losses_B * self.weights_C.to(logits_BC.device)[labels_B]


class BalancedBinaryCrossEntropy:
    """Binary cross entropy of the mean label, each label for itself a choice between two classes: without it, and with it.

    Args:
        weights_2C: of the loss of a label that the row does not have, and of one that it has.
        gamma: as in `BalancedCrossEntropy`.
        shifts_C: are added to the logits.
    """

    def __init__(self, *, weights_2C: Tensor | None = None, gamma: float = 0.0, shifts_C: Tensor | None = None):
        self.weights_2C, self.gamma, self.shifts_C = weights_2C, gamma, shifts_C

    def __call__(self, logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
        if self.shifts_C is not None:
            logits_BC = logits_BC + self.shifts_C.to(logits_BC.device)
        losses_BC = F.binary_cross_entropy_with_logits(logits_BC, labels_BC, reduction="none")
        losses_BC = _focused(losses_BC, self.gamma)
        if self.weights_2C is not None:
            without_C, with_C = self.weights_2C.to(logits_BC.device)
            losses_BC = losses_BC * (without_C + (with_C - without_C) * labels_BC)
        return losses_BC.mean(-1)


def build(balance: dict[str, BalanceConfig], *, counts_C: np.ndarray, weights_by_label: Sequence[float]) -> Criterion:
    """The criterion of one class a row that all entries together ask for.

    The loss of a step is the plain mean over its rows. Weights are scaled so that their mean over an epoch is 1: the learning
    rate keeps its meaning, and no cut into steps, micro-batches or ranks changes what a row counts.

    Args:
        balance: samplers and thresholds are passed over.
        counts_C: rows of each class in an epoch.
        weights_by_label: those given by hand.
    """
    weights_C, gamma, tau = _asked_for(balance, counts_C, np.asarray(weights_by_label, dtype=np.float64))
    shifts_C = None if tau is None else tau * np.log(np.maximum(counts_C, 1) / np.maximum(counts_C, 1).sum())
    if weights_C is None and shifts_C is None and not gamma:
        return cross_entropy
    return BalancedCrossEntropy(weights_C=_tensor(weights_C), gamma=gamma, shifts_C=_tensor(shifts_C))


def build_binary(
    balance: dict[str, BalanceConfig], *, counts_C: np.ndarray, num_rows: int, weights_by_label: Sequence[float]
) -> Criterion:
    """The same for rows with any number of labels; each label's weights have a mean of 1 over an epoch.

    Args:
        balance: thresholds are passed over, and samplers there must be none.
        counts_C: rows with each label.
        num_rows: of an epoch.
        weights_by_label: those given by hand, of rows with a label; those without it weigh 1.
    """
    counts_2C = np.stack([num_rows - counts_C, counts_C])
    by_hand_2C = np.stack([np.ones(len(counts_C)), np.asarray(weights_by_label, dtype=np.float64)])
    weights_2C, gamma, tau = _asked_for(balance, counts_2C, by_hand_2C)
    without_C, with_C = np.maximum(counts_2C, 1)
    shifts_C = None if tau is None else tau * np.log(with_C / without_C)
    if weights_2C is None and shifts_C is None and not gamma:
        return binary_cross_entropy
    return BalancedBinaryCrossEntropy(weights_2C=_tensor(weights_2C), gamma=gamma, shifts_C=_tensor(shifts_C))


def _asked_for(
    balance: dict[str, BalanceConfig], counts: np.ndarray, by_hand: np.ndarray
) -> tuple[np.ndarray | None, float, float | None]:
    """Weights of the classes along the first axis, with a mean of 1 over an epoch; gamma; tau."""
    weights, gamma, tau = None, 0.0, None
    present = np.maximum(counts, 1)  # a class without rows never has a loss
    for section in balance.values():
        match section:
            case InverseFrequency():
                weights = 1 / present
            case EffectiveNumber():
                weights = effective_weights(present, beta=section.beta)
            case ClassWeights():
                weights = by_hand
            case Focal():
                gamma = section.gamma
            case LogitAdjustment():
                tau = section.tau
    if weights is not None:
        weights = weights * counts.sum(0) / (weights * counts).sum(0)
    return weights, gamma, tau


def _focused(losses: Tensor, gamma: float) -> Tensor:
    if not gamma:
        return losses
    # 1 - p, whose power below 1 has no finite slope where it is zero
    return (-torch.expm1(-losses)).clamp_min(torch.finfo(losses.dtype).tiny) ** gamma * losses


def effective_weights(counts: np.ndarray, *, beta: float) -> np.ndarray:
    """1 / E with E = (1 - beta^n) / (1 - beta), the effective number of n rows. Cui et al. 2019: arxiv.org/abs/1901.05555"""
    return (1 - beta) / -np.expm1(counts * np.log(beta)) if beta else np.ones(counts.shape)


def _tensor(values: np.ndarray | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)
