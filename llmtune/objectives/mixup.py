"""Rows mixed with each other, and their losses with them. Zhang et al. 2018: https://arxiv.org/abs/1710.09412

The pairs are drawn within a micro-batch: a step that is cut otherwise draws others. B: rows, L: tokens, C: outputs.
"""

from functools import partial

import torch
from torch import Tensor, nn

from llmtune.objectives.word_vectors import Mix, table_of
from llmtune.tasks.base import Batch, LossOf, LossTerms, Task


def mixed_answers(task: Task, model: nn.Module, *, alpha: float) -> LossOf:
    """Mixes the vectors that the output layer reads. Guo et al. 2019 (senMixup): https://arxiv.org/abs/1905.08941

    That layer is linear, and shares add up to one: mixing what it reads is mixing what it answers, whatever the architecture.
    """
    return partial(_mixed_answers, task, alpha)


def mixed_words(task: Task, model: nn.Module, *, alpha: float) -> LossOf:
    """Mixes the word vectors, place by place; the shorter row counts as filled up with zeros. Guo et al. 2019 (wordMixup)."""
    return partial(_mixed_words, task, alpha, Mix(table_of(model)))


def draw(num_rows: int, alpha: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Another row for each row (or itself), int64 [B], and the share of the row itself, [B]; by the generator of the CPU."""
    partner_B = torch.randperm(num_rows)
    share_B = torch.distributions.Beta(torch.tensor(alpha), torch.tensor(alpha)).sample((num_rows,))
    return partner_B.to(device), share_B.to(device)


def _mixed_answers(task: Task, alpha: float, model: nn.Module, batch: Batch) -> LossTerms:
    logits_BC = model(**batch.inputs).logits.float()
    partner_B, share_B = draw(len(logits_BC), alpha, logits_BC.device)
    return _loss(task, torch.lerp(logits_BC[partner_B], logits_BC, share_B.unsqueeze(-1)), batch, partner_B, share_B)


def _mixed_words(task: Task, alpha: float, mix: Mix, model: nn.Module, batch: Batch) -> LossTerms:
    mask_BL = batch.inputs["attention_mask"]
    partner_B, share_B = draw(len(mask_BL), alpha, mask_BL.device)
    # A mixed row is as long as the longer of the two, and where the row itself has ended it has the other's tokens and types.
    mixed = {name: t.where(mask_BL == 1, t[partner_B]) for name, t in batch.inputs.items()}
    mix.partner, mix.share, mix.mask = partner_B, share_B, mask_BL.float()
    try:
        logits_BC = model(**mixed).logits.float()
    finally:
        mix.partner = mix.share = mix.mask = None
    return _loss(task, logits_BC, batch, partner_B, share_B)


def _loss(task: Task, logits_BC: Tensor, batch: Batch, partner_B: Tensor, share_B: Tensor) -> LossTerms:
    """The row's loss and its partner's, by their shares."""
    others = {name: t[partner_B] for name, t in batch.targets.items()}
    losses_B = share_B * task.losses(logits_BC, batch.targets) + (1 - share_B) * task.losses(logits_BC, others)
    return LossTerms(losses_B.sum())
