"""How many tokens rows have before they are cut, and how many of them the tokenizer does not know."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data.forms import CONVERSATIONS
from llmtune.data.spool import batches_of
from llmtune.inspection.findings import NUM_EXAMPLES, Finding, examples
from llmtune.tasks.chat import Chat
from llmtune.tasks.text import TextInputs, filled

_ROWS, _BYTES = 10_000, 8 << 20  # that are tokenized at once
_UNCUT = 1 << 30  # tokens
_MANY_UNKNOWN = 0.1  # of all tokens
_WHOLE = 0.99  # share of the rows that a longer max_length would keep whole


class Tokens:
    """Counts tokens as training would make them.

    Args:
        tokenizer: transformers' own object.
        directory: where it lies.
        max_length: tokens at which rows are cut; None: the task joins its rows, and cuts none.
        longest: tokens that the model can read; None: it does not say.
        is_trained: whether the tokenizer was trained on these rows, so that another kind could be.
        has_pairs: whether rows are pairs of texts.
        chat: writes rows that are conversations; None: rows are texts.
    """

    def __init__(
        self,
        tokenizer: Any,
        directory: Path,
        *,
        max_length: int | None,
        longest: int | None,
        is_trained: bool,
        has_pairs: bool,
        chat: Chat | None = None,
    ):
        self.max_length, self._longest, self._is_trained = max_length, longest, is_trained
        self._unknown = tokenizer.unk_token_id if tokenizer.unk_token_id != tokenizer.eos_token_id else None
        self._chat = chat
        self._text = TextInputs(directory, max_length=_UNCUT, pad_token_id=0, token_types=False, has_pairs=has_pairs)

    def look(self, split: str, table: pa.Table) -> tuple[np.ndarray, list[Finding]]:
        """Tokens of each row, special ones included, int64 [N]; and what is wrong with them."""
        names = CONVERSATIONS if self._chat is not None else ("text", "text_pair")
        names = [name for name in names if name in table.column_names]
        lengths, num_unknown = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in batches_of(table.select(names), rows=_ROWS, size=_BYTES):
            ids = self._ids(batch.columns)
            sizes = pc.list_value_length(ids).to_numpy().astype(np.int64)
            lengths.append(sizes)
            if self._unknown is not None:
                is_unknown = ids.flatten().to_numpy() == self._unknown
                num_unknown.append(
                    np.bincount(np.repeat(np.arange(len(sizes)), sizes), is_unknown, len(sizes)).astype(np.int64)
                )
        lengths_N, unknown_N = np.concatenate(lengths), np.concatenate(num_unknown)
        return lengths_N, [*self._cut(split, table, lengths_N), *self._strange(split, table, lengths_N, unknown_N)]

    def _ids(self, columns: list[pa.Array]) -> pa.ListArray:
        if self._chat is None:
            return self._text.encode_columns(*map(filled, columns))["input_ids"]
        written = [self._chat.write(column.to_pylist()) for column in columns]
        longest = [max((one.ids for one in row), key=len) for row in zip(*written, strict=True)]  # of two answers
        return pa.array(longest, pa.list_(pa.int32()))

    def _cut(self, split: str, table: pa.Table, lengths_N: np.ndarray) -> list[Finding]:
        if self.max_length is None:
            return []
        rows = np.flatnonzero(lengths_N > self.max_length)
        if not len(rows):
            return []
        rows = rows[np.argsort(-lengths_N[rows], kind="stable")]
        notes = [f"{lengths_N[row]:,} tokens, {self.max_length:,} are read" for row in rows[:NUM_EXAMPLES]]
        wanted = max(int(np.quantile(lengths_N, _WHOLE)) + 1, self.max_length + 1)
        wanted = min(-(-wanted // 8) * 8, self._longest or _UNCUT)
        kind = "cut" if wanted > self.max_length else "cut_by_model"
        return [Finding(kind, split, len(rows), table.num_rows, examples(table, rows, notes), {"length": wanted})]

    def _strange(self, split: str, table: pa.Table, lengths_N: np.ndarray, unknown_N: np.ndarray) -> list[Finding]:
        if not self._is_trained or not len(unknown_N) or unknown_N.sum() < _MANY_UNKNOWN * lengths_N.sum():
            return []
        rows = np.flatnonzero(unknown_N)
        shares_N = unknown_N / np.maximum(lengths_N, 1)
        rows = rows[np.argsort(-shares_N[rows], kind="stable")]
        notes = [f"{unknown_N[row]} of {lengths_N[row]} tokens unknown" for row in rows[:NUM_EXAMPLES]]
        return [Finding("unknown", split, len(rows), table.num_rows, examples(table, rows, notes))]
