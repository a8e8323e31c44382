"""Encoders whose head reads the first token alone: their last layer works for that token alone.

Of the last layer, the other tokens' keys and values are needed, and nothing else: no query, no output, no feed-forward. That is
the same function with a smaller cost: of a model with six layers a seventh of the work.
"""

from functools import cache
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

# Classes with layers of BERT's shape and a head that reads the first token of the last one.
CLASSES = frozenset(
    f"{name}ForSequenceClassification" for name in ("Bert", "Camembert", "Electra", "Ernie", "Roberta", "XLMRoberta")
)
KERNELS = ("eager", "sdpa")  # whose masks are [B, 1, L, S]


def install(model: PreTrainedModel) -> None:
    """Let the last layer leave out what the head does not read; a layer that has come from such a model is put right.

    `last_hidden_state` of the body, and what it tells about the last layer's attention, are then of the first token alone.
    """
    last = uninstall(model)
    is_masked_so = model.config._attn_implementation in KERNELS
    if last is not None and type(model).__name__ in CLASSES and is_masked_so and not model.config.is_decoder:
        last.__class__ = _narrowed(type(last))


def uninstall(model: PreTrainedModel) -> nn.Module | None:
    """Let the last layer work for all tokens again; returns it, if there is one of the kind."""
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return None
    last = layers[-1]
    last.__class__ = getattr(last, "whole_class", type(last))
    return last


@cache
def _narrowed(layer_class: type[nn.Module]) -> type[nn.Module]:
    """A subclass, for transformers wraps the forward of each class of layers, so that activations can be computed twice."""
    return type(f"FirstToken{layer_class.__name__}", (layer_class,), {"forward": _forward, "whole_class": layer_class})


def _forward(layer: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
    """In place of BertLayer.forward: of hidden states [B, L, D], makes [B, 1, D]."""
    attention, first = layer.attention.self, hidden_states[:, :1]
    query, key, value = (
        projected.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)  # [B, H, 1 or L, D / H]
        for projected in (attention.query(first), attention.key(hidden_states), attention.value(hidden_states))
    )
    mask = attention_mask[:, :, :1] if attention_mask is not None else None
    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    dropout = attention.dropout.p if attention.training else 0.0
    attended, _ = attend(attention, query, key, value, mask, dropout=dropout, scaling=attention.scaling)
    return layer.feed_forward_chunk(layer.attention.output(attended.flatten(2), first))
