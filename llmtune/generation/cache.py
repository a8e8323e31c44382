"""Keys and values that grow in place, each row at its own end. transformers' own are copied as a whole for each token.

B: rows, H: heads, S: places of the longest row, D: width of a head.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

ROOM = 128  # places for which there is room to begin with; then half as many again


class Ends:
    """Where each row's next token belongs, for all layers of a cache; None: behind the longest.

    Attributes:
        at: row numbers and places, int64 [B] each.
    """

    at: tuple[Tensor, Tensor] | None = None


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are the filled part of a larger block. What is not filled is zero.

    Args:
        ends: of the cache.
    """

    def __init__(self, ends: Ends):
        super().__init__()
        self._ends = ends
        self._blocks: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Take up keys and values of new tokens, [B, H, L, D]; returns those of all places."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._blocks is None or self._blocks[0].shape[-2] < after:
            self._make_room(key_states, value_states, before, after + max(ROOM, after // 2))
        for block, new in zip(self._blocks, (key_states, value_states), strict=True):
            if self._ends.at is None:
                block[:, :, before:after] = new
            else:
                rows_B, places_B = self._ends.at
                block[rows_B, :, places_B] = new[:, :, 0]
        self._show(after)
        return self.keys, self.values

    def select(self, rows: Tensor, *, length: int) -> None:
        """Go on with these rows alone, of which the longest has `length` tokens."""
        self._blocks = tuple(block.index_select(0, rows) for block in self._blocks)
        self._show(length)

    def _make_room(self, keys: Tensor, values: Tensor, filled: int, room: int) -> None:
        blocks = tuple(new.new_zeros(*new.shape[:2], room, new.shape[-1]) for new in (keys, values))
        if filled:
            for block, old in zip(blocks, (self.keys, self.values), strict=True):
                block[:, :, :filled] = old
        self._blocks = blocks

    def _show(self, length: int) -> None:
        self.keys, self.values = (block[:, :, :length] for block in self._blocks)


def new_cache(model: PreTrainedModel) -> tuple[DynamicCache, Ends | None]:
    """An empty cache for a model, of the kinds of layers that it has, and its ends; None if not all of them know ends."""
    cache, ends = DynamicCache(config=model.config), Ends()
    if not all(type(layer) is DynamicLayer for layer in cache.layers):
        return cache, None
    cache.layers = [GrowingLayer(ends) for _ in cache.layers]
    return cache, ends
