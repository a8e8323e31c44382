"""Attention on the CPU where torch's own is slow: its fused kernel knows no dropout, and takes bfloat16 through detours.

B: batch, H: heads, L: queries, S: keys, D: width of a head. What is computed is what transformers' eager attention computes:
products in the type of the input, softmax in float32 and then rounded to that type.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llmtune.training import dropout as dropouts

# Scores of a head up to which bfloat16 is ours: 4 times as fast at 64 x 64, 1.9 times at 512 x 512. At 1024 x 1024 it is 1.2
# times, but the weights that are kept for the way back are four times as many, where torch's kernel keeps none.
MOST_SCORES = 512 * 512
SCORES_AT_ONCE = 1 << 18
VECTOR = 32  # numbers in bfloat16
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
        out = query.new_empty(shape[0], shape[2], shape[1], shape[3])
        weights, keep, factor = query.new_empty(*query.shape[:2], key.shape[1]), None, 1.0
        if dropout:
            keep, factor = dropouts.zeros_and_ones(weights.shape, dropout, weights.dtype)
        if mask is not None and mask.dtype == torch.bool:  # adding is several times faster than filling
            mask = torch.zeros(mask.shape, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
        for texts in _slices(shape, key.shape[1]):
            heads = slice(texts.start * num_shared, texts.stop * num_shared)
            scores = torch.empty_like(weights[heads])
            if mask is None:
                _product(query[heads], key[heads].mT, scaling, out=scores)
            else:
                part = mask[texts] if mask.ndim == 4 and len(mask) > 1 else mask
                scores = _masked(scores, query[heads], key[heads], part, scaling, shape)
            weights[heads] = torch.softmax(_wide(scores), -1)
            attended = out.new_empty(len(scores), scores.shape[1], shape[3])
            _product(_kept(weights, keep, heads), value[heads], factor, out=attended)
            out[texts] = attended.view(-1, *shape[1:]).transpose(1, 2)
        ctx.save_for_backward(query, key, value, weights, keep)
        ctx.shape, ctx.num_shared, ctx.scaling, ctx.factor = shape, num_shared, scaling, factor
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, keep = ctx.saved_tensors
        grad = grad.transpose(1, 2).reshape(query.shape)
        grads = [torch.empty_like(part) for part in (query, key, value)]
        for texts in _slices(ctx.shape, key.shape[1]):
            heads = slice(texts.start * ctx.num_shared, texts.stop * ctx.num_shared)
            _product(_kept(weights, keep, heads).mT, grad[heads], ctx.factor, out=grads[2][heads])
            grad_weights = torch.empty_like(weights[heads])
            _product(grad[heads], value[heads].mT, ctx.factor, out=grad_weights)
            if keep is not None:
                grad_weights *= keep[heads]
            grad_weights, given = _wide(grad_weights), _wide(weights[heads])
            grad_scores = torch._softmax_backward_data(grad_weights, given, -1, given.dtype).to(weights.dtype)
            _product(grad_scores, key[heads], ctx.scaling, out=grads[0][heads])
            _product(grad_scores.mT, query[heads], ctx.scaling, out=grads[1][heads])
        grad_key, grad_value = (part.unflatten(0, (-1, ctx.num_shared)) for part in grads[1:])
        return grads[0].view(ctx.shape), grad_key, grad_value, None, None, None


def _product(a: Tensor, b: Tensor, factor: float, *, out: Tensor) -> None:
    torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


def _masked(scores: Tensor, query: Tensor, key: Tensor, mask: Tensor, scaling: float, shape: torch.Size) -> Tensor:
    """Scores and mask added up, of that type: what a mask adds in float32 is not to be rounded."""
    if mask.dtype == scores.dtype:
        scores.view(-1, *shape[1:3], scores.shape[-1]).copy_(mask)
        return torch.baddbmm(scores, query, key.mT, alpha=scaling, out=scores)
    _product(query, key.mT, 1.0, out=scores)
    added = torch.add(mask, scores.view(-1, *shape[1:3], scores.shape[-1]), alpha=scaling)
    return added.view(scores.shape)


def _wide(rows: Tensor) -> Tensor:
    """In float32, unless softmax is as fast in bfloat16: what fills no whole vector takes it 15 times as long there."""
    return rows if rows.dtype != torch.bfloat16 or rows.shape[-1] % VECTOR == 0 else rows.float()


def _kept(weights: Tensor, keep: Tensor | None, heads: slice) -> Tensor:
    return weights[heads] if keep is None else weights[heads] * keep[heads]


def _slices(shape: torch.Size, num_keys: int) -> list[slice]:
    """Of the texts, so many at a time that their scores stay in the cache."""
    size = max(1, SCORES_AT_ONCE // (shape[1] * shape[2] * num_keys))
    return [slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]
