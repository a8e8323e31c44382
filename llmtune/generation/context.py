"""What a model has read of some rows, so that each new token costs one token's work.

B: rows, L: new tokens of the longest, S: places of the cache, V: entries of the vocabulary.
"""

import inspect
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmtune.errors import ModelError
from llmtune.generation import cache as caches
from llmtune.tasks.vocabulary_loss import logits_at


class Context:
    """Rows that are read together. Shorter ones are padded; masks and positions see to it that nobody notices.

    They are padded on the right, and each goes on at its own end: a row then has its tokens at the same places whatever the
    rows beside it, and sums over places come out the same, to the last bit, wherever matrix products of a row do. Only models
    with layers that see a part of the places alone (sliding windows) are padded on the left.

    Args:
        model: causal, on its device, in eval mode; called under `torch.inference_mode`.

    Raises:
        ModelError: it keeps nothing of what it has read.
    """

    def __init__(self, model: PreTrainedModel):
        names = inspect.signature(model.forward).parameters
        if "past_key_values" not in names:
            kind = model.config.model_type
            raise ModelError(f"models of the kind {kind} cannot write here: they keep no keys and values of what they read")
        self._model = model
        self._takes_positions = "position_ids" in names
        self._cache, self._ends = caches.new_cache(model)
        self._row: list[int] = []  # the tokens of a single row
        self._lengths: list[int] = []  # tokens of each row
        self._num_places = 0

    def start(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Read rows from their first token on; what the last single row began with alike is not read again.

        Returns:
            Logits of the token after each row, [B, V].
        """
        known = self._shared(rows[0]) if len(rows) == 1 else 0
        if known:
            self._cache.crop(known - self._num_places)
        else:
            self._cache, self._ends = caches.new_cache(self._model)
        self._row = list(rows[0]) if len(rows) == 1 else []
        self._lengths = [len(row) for row in rows]
        longest = self._num_places = max(self._lengths)
        pads = [[0] * (longest - length) for length in self._lengths]
        ids = [
            [*fill, *row[known:]] if self._ends is None else [*row[known:], *fill] for row, fill in zip(rows, pads, strict=True)
        ]
        width = longest - known
        last = [width - 1 if self._ends is None else length - known - 1 for length in self._lengths]
        at_B = torch.tensor([i * width + place for i, place in enumerate(last)], device=self._model.device)
        return logits_at(self._model, {**self._inputs(ids, known), "use_cache": True}, at_B)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one more token of each row; returns the logits of the next, [B, V]."""
        if self._row:
            self._row.append(tokens[0])
        places = list(self._lengths)
        self._lengths = [length + 1 for length in self._lengths]
        self._num_places += 1
        if self._ends is not None and min(places) < max(places):
            device = self._model.device
            self._ends.at = torch.arange(len(places), device=device), torch.tensor(places, device=device)
        made = self._model(
            **self._inputs([[token] for token in tokens], self._num_places - 1), use_cache=True, return_dict=True
        )
        if self._ends is not None:
            self._ends.at = None
        return made.logits[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these of the rows alone."""
        self._lengths = [self._lengths[row] for row in rows]
        indices = torch.tensor(rows, device=self._model.device)
        if self._ends is None:
            self._cache.batch_select_indices(indices)
            return
        self._num_places = max(self._lengths)
        for layer in self._cache.layers:
            layer.select(indices, length=self._num_places)

    def _shared(self, row: Sequence[int]) -> int:
        """How many tokens at the beginning of a row stand in the cache already. The last one is read in any case."""
        if not self._row or self._ends is None:
            return 0
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(self._row, row, strict=False))
        return min(sum(1 for _ in alike), len(row) - 1, self._num_places)

    def _inputs(self, ids: list[list[int]], first: int) -> dict[str, Tensor]:
        """What the model is called with: tokens from the place `first` on, their positions, and which places count."""
        device = self._model.device
        inputs = {"input_ids": torch.tensor(ids, device=device), "past_key_values": self._cache}
        new_L = torch.arange(first, self._num_places, device=device)
        is_even = min(self._lengths) == self._num_places
        lengths_B1 = None if is_even else torch.tensor(self._lengths, device=device).unsqueeze(1)
        positions_BL = new_L.expand(len(ids), -1)
        if not is_even and self._ends is None:
            places_S = torch.arange(self._num_places, device=device)
            inputs["attention_mask"] = (places_S >= self._num_places - lengths_B1).long()
            positions_BL = (new_L - (self._num_places - lengths_B1)).clamp_min(0)
        elif not is_even and first:  # at the beginning, what fills up a row stands behind all that reads it
            inputs["attention_mask"] = (torch.arange(self._num_places, device=device) < lengths_B1).long()
            positions_BL = lengths_B1 - 1
        if self._takes_positions:
            inputs["position_ids"] = positions_BL
        return inputs
