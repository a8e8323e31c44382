"""Label smoothing. Szegedy et al. 2016: https://arxiv.org/abs/1512.00567

B: rows, C: classes.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from llmtune.tasks.criterion import Criterion, cross_entropy


def smoothed(criterion: Criterion, *, smoothing: float) -> Criterion:
    """(1 - smoothing) times the loss of the row's class, and smoothing times the mean loss over all classes.

    With class weights that is torch's `cross_entropy(weight=..., label_smoothing=...)`: each class counts by its own weight.
    """
    if criterion is cross_entropy:  # torch's own needs no [B, C, C]
        return partial(F.cross_entropy, label_smoothing=smoothing, reduction="none")
    return partial(_smoothed, criterion, smoothing)


def _smoothed(criterion: Criterion, smoothing: float, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    num_rows, num_classes = logits_BC.shape
    repeated = logits_BC.unsqueeze(1).expand(-1, num_classes, -1).flatten(0, 1)
    every = torch.arange(num_classes, device=labels_B.device).repeat(num_rows)
    mean_B = criterion(repeated, every).view(num_rows, num_classes).mean(-1)
    return (1 - smoothing) * criterion(logits_BC, labels_B) + smoothing * mean_B
