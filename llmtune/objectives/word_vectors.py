"""Where a loss takes hold of the word vectors on their way into the model, whatever the architecture.

A hook on the table of word vectors sees what the table answers. The model goes on getting token ids: an LSTM has no other way
in, and causal classifiers find the end of a text by them. The hook is there from the start and reads tensors that are set for
one pass, so that a compiled model has it, too. B: rows, L: tokens, E: width of the vectors.
"""

from typing import Any

import torch
from torch import Tensor, nn

from llmtune.errors import ModelError


def table_of(model: nn.Module) -> nn.Embedding:
    """The embedding that turns a model's token ids into vectors.

    Raises:
        ModelError: there is none.
    """
    try:
        table = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        table = None
    if not isinstance(table, nn.Embedding):
        raise ModelError(
            "the model has no table of word vectors that could be changed in training",
            remedy="leave out fgm and word_mixup, or use another model",
        )
    return table


class Shift:
    """Adds a tensor to the word vectors of a pass.

    Attributes:
        by: [B, L, E], or None for none.
        seen: the vectors of the last pass as the table gave them, without gradient.
    """

    def __init__(self, table: nn.Embedding):
        self.by: Tensor | None = None
        self.seen: Tensor | None = None
        table.register_forward_hook(self._after)

    def _after(self, _: nn.Module, __: Any, vectors: Tensor) -> Tensor:
        if self.by is None:
            return vectors
        self.seen = vectors.detach()
        return vectors + self.by


class Mix:
    """Mixes the word vectors of each row with those of another one; padding counts as zeros.

    Attributes:
        partner: the other row of each row, int64 [B]; None: nothing is mixed.
        share: of the row itself, [B].
        mask: 1.0 where a row has tokens, 0.0 where it has padding, [B, L].
    """

    def __init__(self, table: nn.Embedding):
        self.partner: Tensor | None = None
        self.share: Tensor | None = None
        self.mask: Tensor | None = None
        table.register_forward_hook(self._after)

    def _after(self, _: nn.Module, __: Any, vectors: Tensor) -> Tensor:
        if self.partner is None:
            return vectors
        own, share = vectors * self.mask.unsqueeze(-1), self.share[:, None, None]
        return torch.lerp(own[self.partner], own, share)
