"""The texts of the train rows as an epoch of training sees them, apart from any tokenizer."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from llmtune.data.prepared import Split
from llmtune.tasks.base import Draw
from llmtune.tasks.text import Augmenter, TextInputs

_CHUNK_ROWS = 10_000


class AugmentedRows:
    """The rows of a canonical table, each with the number that keys its draws in training.

    Args:
        table: the train rows.
        augmenter: changes the texts of one row.
        seed: of the run.
        stored: the prepared train rows, if the task leaves out some of the table's; None: it has them all.
    """

    def __init__(self, table: pa.Table, augmenter: Augmenter, *, seed: int, stored: Split | None = None):
        self._table, self._seed, self._stored = table, seed, stored
        self._inputs = TextInputs(None, max_length=0, pad_token_id=0, token_types=False, has_pairs=False)
        self._inputs.augmenter = augmenter

    def __len__(self) -> int:
        return self._table.num_rows if self._stored is None else len(self._stored)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as they are: `id`, the texts, `label` if there is one, `file` and `row`."""
        stored = None if self._stored is None else self._stored_texts()
        expected, number = (None if stored is None else next(stored, None)), 0
        for row in chain.from_iterable(batch.to_pylist() for batch in self._table.to_batches(max_chunksize=_CHUNK_ROWS)):
            texts = {name: row[name] or "" for name in ("text", "text_pair") if name in row}
            if stored is not None and texts["text"] != expected:
                continue
            yield row | texts | {"id": number}
            number += 1
            expected = None if stored is None else next(stored, None)

    def texts(self, row: dict[str, Any], *, epoch: int) -> dict[str, str]:
        """The texts of a row in an epoch."""
        return self._inputs.augmented_texts(row, Draw(self._seed, epoch))

    def _stored_texts(self) -> Iterator[str]:
        for start in range(0, len(self._stored), _CHUNK_ROWS):
            yield from (row["text"] for row in self._stored.rows(range(start, min(start + _CHUNK_ROWS, len(self._stored)))))
