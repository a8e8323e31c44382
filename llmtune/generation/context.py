"""What a model has read of some rows, so that each new token costs one token's work.

B: rows, L: tokens of the longest, V: entries of the vocabulary.
"""

import inspect
from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmtune.errors import ModelError
from llmtune.generation import cache as caches


class Context:
    """Rows that are read together. Shorter ones are padded on the left; masks and positions see to it that nobody notices.

    Args:
        model: causal, on its device, in eval mode; called under `torch.inference_mode`.

    Raises:
        ModelError: it keeps nothing of what it has read.
    """

    def __init__(self, model: PreTrainedModel):
        names = inspect.signature(model.forward).parameters
        if "past_key_values" not in names:
            raise ModelError(
                f"models of the kind {model.config.model_type} cannot write here: they have no keys and values to keep"
            )
        self._model = model
        self._takes_positions = "position_ids" in names
        self._last_alone = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
        self._cache = caches.new_cache(model)
        self._read: list[int] = []  # the tokens of a single row
        self._num_read = 0  # places of the cache
        self._pads: list[int] = []  # of each row, how many of them are padding

    def start(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Read rows from their first token on; what the last single row began with alike is not read again.

        Returns:
            Logits of the token after each row, [B, V].
        """
        known = self._shared(rows[0]) if len(rows) == 1 else 0
        if known:
            self._cache.crop(known - self._num_read)
        else:
            self._cache = caches.new_cache(self._model)
        self._num_read, self._read = known, list(rows[0]) if len(rows) == 1 else []
        longest = max(map(len, rows))
        self._pads = [longest - len(row) for row in rows]
        padded = [[0] * pads + list(row[known:]) for row, pads in zip(rows, self._pads, strict=True)]
        return self._forward(padded)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one more token of each row; returns the logits of the next, [B, V]."""
        if self._read:
            self._read.append(tokens[0])
        return self._forward([[token] for token in tokens])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these of the rows alone."""
        self._pads = [self._pads[row] for row in rows]
        left_out = caches.select(self._cache, torch.tensor(rows, device=self._model.device), start=min(self._pads))
        self._pads = [pads - left_out for pads in self._pads]
        self._num_read -= left_out

    def _shared(self, row: Sequence[int]) -> int:
        """How many tokens at the beginning of a row stand in the cache already. The last one is read in any case."""
        if not self._read or not caches.can_shrink(self._cache):
            return 0
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(self._read, row, strict=False))
        return min(sum(1 for _ in alike), len(row) - 1, self._num_read)

    def _forward(self, ids: list[list[int]]) -> Tensor:
        device = self._model.device
        input_ids = torch.tensor(ids, device=device)
        first, self._num_read = self._num_read, self._num_read + input_ids.shape[1]
        inputs = {}
        if any(self._pads):
            pads_B1 = torch.tensor(self._pads, device=device).unsqueeze(1)
            inputs["attention_mask"] = (torch.arange(self._num_read, device=device) >= pads_B1).long()
            places_BL = (torch.arange(first, self._num_read, device=device) - pads_B1).clamp_min_(0)
        else:
            places_BL = torch.arange(first, self._num_read, device=device).expand_as(input_ids)
        if self._takes_positions:
            inputs["position_ids"] = places_BL
        made = self._model(
            input_ids=input_ids, past_key_values=self._cache, use_cache=True, return_dict=True, **inputs, **self._last_alone
        )
        return made.logits[:, -1]
