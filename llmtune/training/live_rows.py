"""Word vectors of which only the rows that the train data reads take part in training.

A model from elsewhere knows tens of thousands of tokens, and a small data set reads a third of them. The gradient of the other
rows is zero at every step; without them there is that much less to clear, clip, update and save. They are left as they are:
weight decay spares them, as it spares everything that does not learn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmtune.data.prepared import Split

MOST_READ = 0.8  # share of the rows above which there is too little to gain


class LiveRows(nn.Embedding):
    """An embedding whose parameter `weight` is [rows read, D]; to whoever saves, loads or evaluates, it is the whole table.

    Args:
        whole: the embedding in whose place it stands.
        rows: int64, ascending: the tokens that training reads, padding included. Another one is an error, never a wrong row.
    """

    def __init__(self, whole: nn.Embedding, rows: Tensor):
        table = whole.weight.detach()
        super().__init__(*table.shape, whole.padding_idx, _weight=table)
        self.rows, self._table, self._is_stale = rows, table, False
        self._places = torch.full((len(table),), len(rows), device=table.device)
        self._places[rows] = torch.arange(len(rows), device=table.device)
        self._padding = None if whole.padding_idx is None else int(self._places[whole.padding_idx])
        self.weight = nn.Parameter(table[rows])

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self._is_stale = True
            return F.embedding(self._places[input], self.weight, self._padding)
        return F.embedding(input, self.table(), self.padding_idx)

    def table(self) -> Tensor:
        """All rows [V, D], those that learn as they are now."""
        if self._is_stale:
            self._table[self.rows] = self.weight.detach()
            self._is_stale = False
        return self._table

    def mark_changed(self) -> None:
        """Say that `weight` has got other content than by a step of training."""
        self._is_stale = True

    def aligned(self, state: Tensor, rows: Tensor | None, *, new: Tensor | None = None) -> Tensor:
        """What belongs to other rows, or without `rows` to all, as that for these rows.

        Args:
            state: of an optimizer, or weights, [rows, D]; what has fewer dimensions is left as it is.
            rows: that it is of.
            new: [V, D], of which those rows are taken that had none; None: they get zeros.
        """
        if state.ndim < 2 or (rows is not None and torch.equal(rows, self.rows.cpu())):
            return state
        whole = state
        if rows is not None:
            whole = state.new_zeros(self.num_embeddings, state.shape[1]) if new is None else new.cpu().clone()
            whole[rows] = state
        return whole[self.rows.cpu()]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.table()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata, strict, missing, unexpected, errors):
        given = state_dict.get(f"{prefix}weight")
        if given is None:
            missing.append(f"{prefix}weight")
        elif given.shape != self._table.shape:
            errors.append(f"{prefix}weight is {tuple(given.shape)}, but the model has {tuple(self._table.shape)}")
        else:
            with torch.no_grad():
                self._table.copy_(given)
                self.weight.copy_(self._table[self.rows])
            self._is_stale = False


def install(model: nn.Module, split: Split, *, pad_token_id: int | None, also: Sequence[int] = ()) -> None:
    """Exchange the word vectors of a model for those that the rows of a split read, where that is exact and saves work.

    Exact it is where nothing else reads the vectors, and where no token comes up that the split does not hold.

    Args:
        model: opened for tuning, on its device.
        split: the train rows.
        pad_token_id: that fills up shorter rows; None if rows are no tokens.
        also: tokens that training reads besides.
    """
    whole = model.get_input_embeddings() if "input_ids" in split.names else None
    if type(whole) is not nn.Embedding or not whole.weight.requires_grad or whole.max_norm is not None:
        return
    owners = [m for m in model.modules() for p in m.parameters(recurse=False) if p is whole.weight]
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is whole]
    if len(owners) > 1 or len(names) > 1 or whole.scale_grad_by_freq or whole.sparse:
        return
    more = {token for token in (pad_token_id, whole.padding_idx, *also) if token is not None}
    rows = read_rows(split, num_rows=whole.num_embeddings, also=sorted(more))
    if len(rows) <= MOST_READ * whole.num_embeddings:
        parent, _, name = names[0].rpartition(".")
        setattr(model.get_submodule(parent), name, LiveRows(whole, torch.from_numpy(rows).to(whole.weight.device)))


def read_rows(split: Split, *, num_rows: int, also: list[int]) -> np.ndarray:
    """The tokens of a split, and some more, ascending, int64."""
    is_read = np.zeros(num_rows, dtype=bool)
    is_read[also] = True
    for ids in split.items("input_ids"):
        is_read[ids] = True
    return np.flatnonzero(is_read)
