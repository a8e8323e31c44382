"""Rows of a table as a task stores them, chunk by chunk, and what is counted on the way."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from llmtune import console
from llmtune.data.spool import batches_of
from llmtune.errors import DataError
from llmtune.tasks.base import Task
from llmtune.tasks.instruction import InstructionTask
from llmtune.tasks.language_modeling import CausalLmTask
from llmtune.tasks.preference import PreferenceTask
from llmtune.tasks.tagging import TaggingTask
from llmtune.tasks.text import TextInputs

OF_CONVERSATIONS = InstructionTask | PreferenceTask
CHUNK_ROWS, CHUNK_BYTES = 10_000, 4 << 20  # that are worked on at once


def encode_rows(
    task: Task, table: pa.Table, *, advance: Callable[[int], None] | None = None, packed: bool = False
) -> Iterator[dict[str, pa.Array]]:
    """Stored columns of a table, chunk by chunk; `advance` is told how many of its rows are done.

    With `packed`, conversations share rows.

    Raises:
        DataError: a row is unfit, or the rows leave a language model nothing to predict.
    """

    def chunks() -> Iterator[dict[str, pa.Array]]:
        for batch in batches_of(table, rows=CHUNK_ROWS, size=CHUNK_BYTES):
            yield dict(zip(batch.schema.names, batch.columns, strict=True))
            if advance is not None:
                advance(batch.num_rows)

    encoded = task.encode_stream(chunks()) if isinstance(task, CausalLmTask) else map(task.encode, chunks())
    encoded = map(task.pack, encoded) if packed else encoded
    is_empty = True
    for stored in _ahead(encoded):
        is_empty = is_empty and not any(len(values) for values in stored.values())
        yield stored
    if is_empty:
        is_cut = isinstance(task, OF_CONVERSATIONS) and task.left_out
        set_aside = "set split.validation_fraction and split.test_fraction to 0 if these rows were set aside"
        raise DataError(
            f"{table.num_rows:,} {'conversations are too long' if is_cut else 'rows hold too little text'}: "
            "there is nothing to predict",
            where=f"{table['file'][0]}:{table['row'][0]}",
            remedy="a larger tokenizer.max_length" if is_cut else f"add text, or {set_aside}",
        )


def _ahead(items: Iterable[dict[str, pa.Array]]) -> Iterator[dict[str, pa.Array]]:
    """Each item but the first is made while the one before it is used: tokenizers leave the interpreter to others."""
    iterator = iter(items)
    item = next(iterator, None)  # reads the tokenizer's files
    with ThreadPoolExecutor(1) as pool:
        while item is not None:
            made = pool.submit(next, iterator, None)
            yield item
            item = made.result()


class Counted:
    """Passes the stored columns of a table on and counts what goes by."""

    def __init__(self, task: Task, table: pa.Table, advance: Any, *, packed: bool):
        self._task, self._table, self._advance, self._packed = task, table, advance, packed
        self._rows = self._tokens = self._truncated = 0
        self._left_out: Counter[str] = Counter()

    def columns(self) -> Iterator[dict[str, pa.Array]]:
        text = _text_of(self._task)
        before = text.num_truncated if text is not None else 0
        left_out_before = Counter(getattr(self._task, "left_out", {}))
        for stored in encode_rows(self._task, self._table, advance=self._advance, packed=self._packed):
            self._rows += len(next(iter(stored.values())))
            if "input_ids" in stored:
                self._tokens += len(stored["input_ids"].flatten())
            yield stored
        self._truncated = text.num_truncated - before if text is not None else 0
        self._left_out = Counter(getattr(self._task, "left_out", {})) - left_out_before
        if isinstance(self._task, TaggingTask):
            self._task.tell()
        self._tell_left_out()

    def facts(self) -> dict[str, int]:
        counted = {"rows": self._rows, "source_rows": self._table.num_rows}
        return {**counted, "tokens": self._tokens, "truncated": self._truncated}

    def entry(self) -> dict[str, Any]:
        """For the account; a language model's blocks are told beside the rows that they were made of."""
        rows_in = self._table.num_rows
        if isinstance(self._task, CausalLmTask):
            return {"rows_in": rows_in, "rows_out": rows_in, "blocks": self._rows}
        if isinstance(self._task, OF_CONVERSATIONS):
            left_out, packed = dict(self._left_out), {"packed rows": self._rows} if self._packed else {}
        else:
            left_out, packed = {"without text": rows_in - self._rows} if rows_in > self._rows else {}, {}
        rows_out = rows_in - sum(left_out.values())
        return {"rows_in": rows_in, "rows_out": rows_out, "left_out": left_out, "truncated": self._truncated, **packed}

    def _tell_left_out(self) -> None:
        """Answers that are cut teach a model to break off."""
        if isinstance(self._task, OF_CONVERSATIONS) and (self._truncated or self._left_out):
            told = [f"{self._truncated:,} are cut"] if self._truncated else []
            told += [f"{num:,} left out ({reason})" for reason, num in self._left_out.items()]
            limit = f"tokenizer.max_length={self._task.text.max_length}"
            console.notice(f"of {self._table.num_rows:,} conversations {' and '.join(told)} at {limit}")


def _text_of(task: Task) -> TextInputs | None:
    """What tokenizes the rows of a task, if it reads text."""
    return getattr(task, "text", None) or getattr(getattr(task, "inputs", None), "text", None)
