"""Attention on the CPU where torch's own is slow: its fused kernel knows no dropout, and takes bfloat16 through detours.

B: batch, H: heads, L: queries, S: keys, D: width of a head. What is computed is what transformers' eager attention computes:
products in the type of the input, softmax and dropout in float32.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llmtune.training import dropout as dropouts

# Scores of a head up to which bfloat16 is faster here: 4 times at 64 x 64, 1.5 times at 512 x 512, no longer at 1024 x 1024.
MOST_SCORES = 512 * 512
SCORES_AT_ONCE = 1 << 18
NOT_HERE = ("position_bias", "softcap", "cache")  # arguments of transformers' kernel that ours does not know


def install() -> None:
    """Let transformers' attention kernel 'sdpa' be ours on the CPU wherever that is faster."""
    AttentionInterface.register("sdpa", attend)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls an attention kernel: of query [B, H, L, D], key and value [B, H / n, S, D], makes [B, L, H, D].

    Args:
        module: whose attention it is.
        query, key, value: of all heads.
        attention_mask: [B or 1, H or 1, L or 1, S], boolean (whether a key counts) or added to the scores; None: all count.
        dropout: share of the attention weights to drop.
        scaling: of the scores; None: 1 / sqrt(D).
        is_causal: whether a query sees the keys up to its own place alone, if there is no mask; None: as the module says.
        kwargs: of transformers; where one of `NOT_HERE` is among them, its own kernel answers.
    """
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    num_queries, num_keys = query.shape[2], key.shape[2]
    is_causal = is_causal and num_queries > 1 and attention_mask is None
    # Rotated queries and keys are float32 under autocast, which torch's kernel would convert.
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    is_faster = dropout > 0 or (dtype == torch.bfloat16 and num_queries > 1 and num_queries * num_keys <= MOST_SCORES)
    is_known = all(kwargs.get(name) is None for name in NOT_HERE) and not (is_causal and num_queries != num_keys)
    if query.device.type != "cpu" or not is_faster or not is_known:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal, **kwargs
        )
    if is_causal:
        attention_mask = torch.ones(num_queries, num_keys, dtype=torch.bool).tril()
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    query, key, value = (part.to(dtype) for part in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(query, key, value, attention_mask, scaling, dropout), None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float
    ) -> Tensor:
        shape, num_shared = query.shape, key.shape[1]
        # Neighbouring heads may share keys and values: then they are one head of more queries. [BH / n, nL or S, D]
        query, key, value = (part.reshape(len(part) * num_shared, -1, part.shape[-1]) for part in (query, key, value))
        if mask is not None and mask.dtype == torch.bool:  # adding is several times faster than filling
            mask = torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)
        out = query.new_empty(shape[0], shape[2], shape[1], shape[3])
        dropped = query.new_empty(*query.shape[:2], key.shape[1])
        weights = keep = None
        for texts in _slices(shape, key.shape[1], at_once=dropout > 0):
            heads = slice(texts.start * num_shared, texts.stop * num_shared)
            scores = torch.bmm(query[heads], key[heads].mT).float().view(-1, *shape[1:3], key.shape[1])
            if mask is None:
                scores.mul_(scaling)
            else:
                scores = torch.add(mask[texts] if mask.ndim == 4 and len(mask) > 1 else mask, scores, alpha=scaling)
            weights = torch.softmax(scores, -1)
            if dropout:
                keep = dropouts.mask(weights.shape, dropout, torch.float32)
            dropped[heads] = (weights if keep is None else weights * keep).view(-1, *dropped.shape[1:])
            out[texts] = torch.bmm(dropped[heads], value[heads]).view(-1, *shape[1:]).transpose(1, 2)
        # Without dropout the weights are read in the type of the input: their gradient is rounded to it in any case.
        ctx.save_for_backward(query, key, value, None if keep is None else weights, keep, dropped)
        ctx.shape, ctx.num_shared, ctx.scaling = shape, num_shared, scaling
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, keep, dropped = ctx.saved_tensors
        grad = grad.transpose(1, 2).reshape(query.shape)
        grads = [torch.empty_like(part) for part in (query, key, value)]
        for texts in _slices(ctx.shape, key.shape[1], at_once=keep is not None):
            heads = slice(texts.start * ctx.num_shared, texts.stop * ctx.num_shared)
            torch.bmm(dropped[heads].mT, grad[heads], out=grads[2][heads])
            grad_weights = torch.bmm(grad[heads], value[heads].mT).float().view(-1, *ctx.shape[1:3], key.shape[1])
            if keep is None:
                weights = dropped[heads].float().view(grad_weights.shape)
            else:
                grad_weights *= keep
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, torch.float32).mul_(ctx.scaling)
            grad_scores = grad_scores.to(query.dtype).view(-1, *dropped.shape[1:])
            torch.bmm(grad_scores, key[heads], out=grads[0][heads])
            torch.bmm(grad_scores.mT, query[heads], out=grads[1][heads])
        grad_key, grad_value = (part.unflatten(0, (-1, ctx.num_shared)) for part in grads[1:])
        return grads[0].view(ctx.shape), grad_key, grad_value, None, None, None


def _slices(shape: torch.Size, num_keys: int, *, at_once: bool) -> list[slice]:
    """Of the texts, so many at a time that their scores stay in the cache."""
    size = shape[0] if at_once else max(1, SCORES_AT_ONCE // (shape[1] * shape[2] * num_keys))
    return [slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]
