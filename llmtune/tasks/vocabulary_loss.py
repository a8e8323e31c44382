"""Cross-entropy over a vocabulary, without the logits that nobody needs.

The output layer sees the positions alone that have a target; and where the vocabulary is large, a few of them at a time, so
that the logits of a whole batch never exist. B: texts, L: tokens, H: hidden size, V: vocabulary, T: targets, C: one chunk.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100  # target of a position that is not predicted
CHUNK = 1 << 23  # logits at a time
# Between their hidden states and their logits lies the output layer and nothing else.
PLAIN_HEADS = {"gpt2", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen2", "qwen3", "smollm3"}


def summed_loss(model: nn.Module, inputs: dict[str, Tensor], labels_BL: Tensor) -> Tensor:
    """Cross-entropy summed over all positions whose label is not `IGNORED`."""
    at_T = (labels_BL.flatten() != IGNORED).nonzero().squeeze(-1)
    labels_T = labels_BL.flatten()[at_T]
    head = _output_layer(model)
    if head is None or not _is_chunked(model, head, len(at_T)):
        return F.cross_entropy(logits_at(model, inputs, at_T).float(), labels_T, reduction="sum")
    with _only_at(head, at_T), _left_out(head):
        hidden_TH = model(**inputs, **_uncached(model)).logits
    return _ChunkedLoss.apply(hidden_TH, head.weight, head.bias, labels_T)


def token_losses(model: nn.Module, inputs: dict[str, Tensor], labels_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy at each position whose label is not `IGNORED`, float32 [T], and the row of each, int64 [T]."""
    rows_T, places_T = (labels_BL != IGNORED).nonzero(as_tuple=True)
    labels_T, at_T = labels_BL[rows_T, places_T], rows_T * labels_BL.shape[1] + places_T
    head = _output_layer(model)
    if head is None or not _is_chunked(model, head, len(at_T)):
        return F.cross_entropy(logits_at(model, inputs, at_T).float(), labels_T, reduction="none"), rows_T
    with _only_at(head, at_T), _left_out(head):
        hidden_TH = model(**inputs, **_uncached(model)).logits
    return _ChunkedLosses.apply(hidden_TH, head.weight, head.bias, labels_T), rows_T


def logits_at(model: nn.Module, inputs: dict[str, Tensor], at_T: Tensor) -> Tensor:
    """Logits [T, V] of these positions of the flattened batch alone."""
    head = _output_layer(model)
    inputs = {**_uncached(model), **inputs}
    if head is None:
        return model(**inputs).logits.flatten(0, 1)[at_T]
    with _only_at(head, at_T):
        return model(**inputs).logits


def _uncached(model: nn.Module) -> dict[str, bool]:
    """Keys and values of a causal model are kept for generation alone."""
    plain = getattr(model, "module", getattr(model, "_orig_mod", model))
    return {"use_cache": False} if getattr(getattr(plain, "config", None), "use_cache", False) else {}


def _output_layer(model: nn.Module) -> nn.Module | None:
    """The layer from hidden states to logits; None where hooks would not be seen, or there is no linear one."""
    plain = getattr(model, "module", model)  # inside DistributedDataParallel
    is_compiled = hasattr(model, "_orig_mod")
    head = None if is_compiled or not hasattr(plain, "get_output_embeddings") else plain.get_output_embeddings()
    return head if type(head) is nn.Linear else None


def _is_chunked(model: nn.Module, head: nn.Linear, num_targets: int) -> bool:
    is_plain = getattr(model, "module", model).config.model_type in PLAIN_HEADS
    is_alone = getattr(model, "module", model) is model  # DDP has to see the weight's gradient come from the model's forward
    return is_plain and is_alone and num_targets * head.out_features > CHUNK


@contextlib.contextmanager
def _only_at(head: nn.Linear, at_T: Tensor) -> Iterator[None]:
    """Let the output layer see the hidden states of these positions [T, H] instead of [B, L, H]."""
    hook = head.register_forward_pre_hook(lambda _, given: (given[0].flatten(0, 1).index_select(0, at_T),))
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _left_out(head: nn.Linear) -> Iterator[None]:
    """Let the output layer hand its input on."""
    head.forward = lambda hidden: hidden
    try:
        yield
    finally:
        del head.forward


def _chunks(num_targets: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, CHUNK // vocabulary)
    return (slice(start, start + size) for start in range(0, num_targets, size))


def _log_shares(hidden_CH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Tensor:
    logits_CV = (hidden_CH @ weight_VH.T).float()
    if bias_V is not None:
        logits_CV += bias_V.float()
    return torch.log_softmax(logits_CV, -1)


class _ChunkedLosses(torch.autograd.Function):
    """The loss of each target; backward computes the logits again, since only then is known what each counts."""

    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels_T: Tensor) -> Tensor:
        device = hidden_TH.device.type
        ctx.dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_TH.dtype
        ctx.save_for_backward(hidden_TH, weight_VH, bias_V, labels_T)
        losses_T = torch.empty(len(labels_T), dtype=torch.float32, device=hidden_TH.device)
        with torch.autocast(device, enabled=False):
            weight = weight_VH.to(ctx.dtype)
            for part in _chunks(len(labels_T), len(weight)):
                log_shares_CV = _log_shares(hidden_TH[part].to(ctx.dtype), weight, bias_V)
                losses_T[part] = -log_shares_CV.gather(1, labels_T[part, None]).squeeze(1)
        return losses_T

    @staticmethod
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor | None, ...]:
        hidden_TH, weight_VH, bias_V, labels_T = ctx.saved_tensors
        grad_TH = torch.empty_like(hidden_TH)
        grad_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        grad_V = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
        with torch.autocast(hidden_TH.device.type, enabled=False):
            weight = weight_VH.to(ctx.dtype)
            for part in _chunks(len(labels_T), len(weight)):
                hidden_CH = hidden_TH[part].to(ctx.dtype)
                grads_CV = _log_shares(hidden_CH, weight, bias_V).exp_()
                grads_CV.scatter_add_(1, labels_T[part, None], grads_CV.new_full((len(grads_CV), 1), -1.0))
                grads_CV *= grad_T[part, None]
                if grad_V is not None:
                    grad_V += grads_CV.sum(0)
                grads_CV = grads_CV.to(ctx.dtype)
                grad_TH[part] = grads_CV @ weight
                if grad_VH is not None:
                    grad_VH += grads_CV.T @ hidden_CH
        return grad_TH, grad_VH, grad_V, None


class _ChunkedLoss(torch.autograd.Function):
    """Loss and gradients in one pass over chunks of targets; backward multiplies the gradients that are there already."""

    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels_T: Tensor) -> Tensor:
        device = hidden_TH.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_TH.dtype
        total = torch.zeros((), dtype=torch.float32, device=hidden_TH.device)
        grad_TH = torch.empty_like(hidden_TH)
        grad_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        grad_V = torch.zeros_like(bias_V) if bias_V is not None and ctx.needs_input_grad[2] else None
        with torch.autocast(device, enabled=False):
            weight = weight_VH.to(dtype)
            for part in _chunks(len(labels_T), len(weight)):
                hidden_CH, labels_C1 = hidden_TH[part].to(dtype), labels_T[part, None]
                log_shares_CV = _log_shares(hidden_CH, weight, bias_V)
                total -= log_shares_CV.gather(1, labels_C1).sum()
                grads_CV = log_shares_CV.exp_()
                grads_CV.scatter_add_(1, labels_C1, grads_CV.new_full(labels_C1.shape, -1.0))
                if grad_V is not None:
                    grad_V += grads_CV.sum(0)
                grads_CV = grads_CV.to(dtype)
                grad_TH[part] = grads_CV @ weight
                if grad_VH is not None:
                    grad_VH += grads_CV.T @ hidden_CH
        ctx.save_for_backward(grad_TH, grad_VH, grad_V)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * grad.to(g.dtype) for g in ctx.saved_tensors]
        return *scaled, None
