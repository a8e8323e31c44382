"""Which token comes next. B: rows, V: entries of the vocabulary, K: candidates.

What is left out, and in which order, is what transformers does: repetition penalty (Keskar et al. 2019,
https://arxiv.org/abs/1909.05858), temperature, top-k (Fan et al. 2018, https://arxiv.org/abs/1805.04833), top-p (Holtzman
et al. 2020, https://arxiv.org/abs/1904.09751), min-p (Nguyen et al. 2024, https://arxiv.org/abs/2407.01082).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llmtune.config.sections.generation import Sampling

FEW = 256  # candidates that are looked at first; sorting all of a large vocabulary takes longer than a small model


def penalized(logits_BV: Tensor, tokens: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Logits of which those of a row's own tokens are divided by the penalty, or multiplied where they are negative."""
    changed_BV = logits_BV.clone()
    for row_V, own in zip(changed_BV, tokens, strict=True):
        ids = torch.tensor(list(set(own)), device=logits_BV.device)
        scores = row_V[ids]
        row_V[ids] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return changed_BV


def draw(logits_BV: Tensor, uniform_B: np.ndarray, how: Sampling) -> Tensor:
    """One token for each row, drawn by its number in [0, 1); int64 [B].

    Everything happens on the CPU, where running sums are the same each time.
    """
    shares_BK, ids_BK = candidates(logits_BV.float().cpu(), how)
    bounds_BK = shares_BK.double().cumsum(-1)
    at_B1 = torch.from_numpy(uniform_B).unsqueeze(-1) * bounds_BK[:, -1:]
    places_B1 = torch.searchsorted(bounds_BK, at_B1, right=True).clamp_max_(bounds_BK.shape[-1] - 1)
    return ids_BK.gather(-1, places_B1).squeeze(-1)


def candidates(logits_BV: Tensor, how: Sampling) -> tuple[Tensor, Tensor]:
    """Shares of the tokens that may be drawn, not normalized and 0 for those that may not, and their ids in ascending order.

    In the order of their ids, so that two tokens that are equally likely but for rounding do not change places.

    Args:
        logits_BV: float32.
        how: with a temperature above 0.
    """
    logits_BV = logits_BV / how.temperature
    size = logits_BV.shape[-1]
    if how.top_k is None and how.top_p == 1 and how.min_p == 0:
        return logits_BV.softmax(-1), torch.arange(size).expand_as(logits_BV)
    likeliest_BK, ids_BK = logits_BV.topk(min(how.top_k or FEW, size), -1)
    shares_BK, is_whole = _shares(logits_BV, likeliest_BK, how)
    if not is_whole and ids_BK.shape[-1] < size:
        likeliest_BK, ids_BK = logits_BV.sort(-1, descending=True)
        shares_BK, _ = _shares(logits_BV, likeliest_BK, how)
    ids_BK, order_BK = ids_BK.sort(-1)
    return shares_BK.gather(-1, order_BK), ids_BK


def _shares(logits_BV: Tensor, likeliest_BK: Tensor, how: Sampling) -> tuple[Tensor, bool]:
    """Shares of the likeliest tokens, and whether all that may be drawn are among them."""
    among_BX = logits_BV if how.top_k is None else likeliest_BK
    shares_BK = (likeliest_BK - among_BX.logsumexp(-1, keepdim=True)).exp()
    is_whole = how.top_k is not None
    if how.top_p < 1:
        before_BK = shares_BK.cumsum(-1) - shares_BK  # of the likelier ones
        shares_BK = shares_BK.masked_fill(before_BK >= how.top_p, 0)
        is_whole = is_whole or bool((shares_BK[:, -1] == 0).all())
    if how.min_p > 0:
        shares_BK = shares_BK.masked_fill(likeliest_BK < likeliest_BK[:, :1] + math.log(how.min_p), 0)
        is_whole = is_whole or bool((shares_BK[:, -1] == 0).all())
    return shares_BK, is_whole
