"""Keys and values that grow in place. transformers' own are copied as a whole for each token.

B: rows, H: heads, S: tokens, D: width of a head.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

ROOM = 128  # tokens for which there is room to begin with; then half as many again


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are the filled part of a larger block."""

    _blocks: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take up keys and values of new tokens, [B, H, L, D]; returns those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._blocks is None or self._blocks[0].shape[-2] < after:
            self._make_room(key_states, value_states, before, after + max(ROOM, after // 2))
        for block, new in zip(self._blocks, (key_states, value_states), strict=True):
            block[:, :, before:after] = new
        self.keys, self.values = (block[:, :, :after] for block in self._blocks)
        return self.keys, self.values

    def _make_room(self, keys: Tensor, values: Tensor, filled: int, room: int) -> None:
        blocks = tuple(new.new_empty(*new.shape[:2], room, new.shape[-1]) for new in (keys, values))
        if filled:
            for block, old in zip(blocks, (self.keys, self.values), strict=True):
                block[:, :, :filled] = old
        self._blocks = blocks

    def select(self, rows: Tensor, *, start: int) -> None:
        """Go on with these rows alone, without the first `start` tokens, which were padding in all of them."""
        filled = self.get_seq_length() - start
        blocks = tuple(block[:, :, start:].index_select(0, rows) for block in self._blocks)
        self._blocks = blocks
        self.keys, self.values = (block[:, :, :filled] for block in blocks)


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for a model, of the kinds of layers that it has."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def can_shrink(cache: DynamicCache) -> bool:
    """Whether the last tokens can be taken back, as of full attention."""
    return all(type(layer) is GrowingLayer for layer in cache.layers)


def select(cache: DynamicCache, rows: Tensor, *, start: int) -> int:
    """Go on with some rows; returns how many of the first `start` tokens, all padding, could be left out."""
    if can_shrink(cache):
        for layer in cache.layers:
            layer.select(rows, start=start)
        return start
    cache.batch_select_indices(rows)
    return 0
