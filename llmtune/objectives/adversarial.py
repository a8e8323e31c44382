"""Rows learned a second time with word vectors moved against them. Miyato et al. 2017: https://arxiv.org/abs/1605.07725

B: rows, L: tokens, E: width of the vectors.
"""

from functools import partial

import torch
from torch import Tensor, nn

from llmtune.objectives.word_vectors import Shift, table_of
from llmtune.tasks.base import Batch, LossOf, LossTerms, Task

# The gradient's length plays no part; in float16 it must not vanish on its way to the word vectors.
_SCALE = 256.0


def fgm(task: Task, model: nn.Module, *, epsilon: float, weight: float) -> LossOf:
    """The loss of the rows, and `weight` times that of the rows moved by r = epsilon * rms * g / |g|.

    g is the gradient of a row's loss by its word vectors, rms the root mean square of these, where the paper scales the vectors
    themselves. Both are the row's own: it does not matter how a step is cut. The second pass has a dropout of its own.
    """
    table = table_of(model)
    return partial(_loss, task, Shift(table), table.embedding_dim, epsilon, weight)


def _loss(task: Task, shift: Shift, width: int, epsilon: float, weight: float, model: nn.Module, batch: Batch) -> LossTerms:
    mask_BL1 = batch.inputs["attention_mask"].unsqueeze(-1).float()
    shift.by = mask_BL1.new_zeros(*mask_BL1.shape[:2], width, requires_grad=True)
    try:
        clean = task.loss(model, batch).sum
        (gradient,) = torch.autograd.grad(clean * _SCALE, shift.by, retain_graph=True)
        shift.by = step(gradient, shift.seen, mask_BL1, epsilon=epsilon)
        moved = weight * task.loss(model, batch).sum
    finally:
        shift.by = shift.seen = None
    return LossTerms(clean + moved, {"task": clean.detach(), "fgm": moved.detach()})


def step(gradient_BLE: Tensor, vectors_BLE: Tensor, mask_BL1: Tensor, *, epsilon: float) -> Tensor:
    """epsilon * rms * g / |g| for each row, over the places that the mask names with 1; zero where there is no gradient."""
    gradient_BLE, vectors_BLE = gradient_BLE * mask_BL1, vectors_BLE * mask_BL1
    length = torch.linalg.vector_norm(gradient_BLE, dim=(1, 2), keepdim=True)
    number = mask_BL1.sum((1, 2), keepdim=True) * vectors_BLE.shape[-1]
    rms = torch.linalg.vector_norm(vectors_BLE, dim=(1, 2), keepdim=True) / number.sqrt()
    return epsilon * rms * gradient_BLE / length.clamp(min=torch.finfo(length.dtype).tiny)
