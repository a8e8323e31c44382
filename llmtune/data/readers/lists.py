"""Columns of lists: several labels of a text, the words of a sentence and their tags. N: rows, M: items of all lists."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data.readers.columns import as_text, text_array
from llmtune.errors import DataError

TRUE, FALSE = ("1", "1.0", "true", "True", "TRUE"), ("0", "0.0", "false", "False", "FALSE")
LISTS = pa.list_(pa.string())


def list_array(values: Sequence[Any], *, column: str, name: str, rows: Sequence[int]) -> pa.Array:
    """JSON values as lists of strings, or as plain text where none of them is a list.

    Raises:
        DataError: one is neither, or some are lists and others text.
    """
    if not any(isinstance(value, list) for value in values):
        return text_array(values, column=column, name=name, rows=rows)
    for row, value in zip(rows, values, strict=True):
        if value is not None and not isinstance(value, list):
            raise DataError(f"column '{column}' holds lists, but {str(value)[:50]!r} here", where=f"{name}:{row}")
    lengths = [0 if value is None else len(value) for value in values]
    item_rows = np.repeat(np.asarray(rows), lengths)
    items = text_array([item for value in values for item in value or ()], column=column, name=name, rows=item_rows)
    is_missing = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(_offsets(lengths), items, mask=is_missing if any(is_missing.to_pylist()) else None)


def as_lists(array: pa.Array, *, column: str, key: str, name: str, rows: np.ndarray) -> pa.Array:
    """A column of lists of any single-valued type as lists of strings.

    Args:
        array: of N rows.
        column: of the file.
        key: of the config that names it.
        name, rows: of the file, and of each row, for messages.

    Raises:
        DataError: the column holds no lists, a list is missing, or an item is.
    """
    if not is_list(array.type):
        remedy = f"name a column of lists in {key}, as JSONL, Parquet and CoNLL files have them"
        raise DataError(f"column '{column}' holds text, not lists", where=f"{name}:{rows[0]}", remedy=remedy)
    if array.null_count:
        row = rows[pc.index(array.is_null(), True).as_py()]
        raise DataError(
            f"column '{column}' is empty", where=f"{name}:{row}", remedy="write [] where there is nothing, or remove the row"
        )
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    items = as_text(pc.list_flatten(array), column=column, name=name, rows=(item_rows := np.repeat(rows, lengths)))
    if items.null_count:
        row = item_rows[pc.index(items.is_null(), True).as_py()]
        raise DataError(
            f"a list of column '{column}' holds an empty item", where=f"{name}:{row}", remedy="correct or remove the row"
        )
    return pa.ListArray.from_arrays(_offsets(lengths), items)


def divided(texts: pa.Array, separator: str) -> pa.Array:
    """Texts as lists of what stands between separators, without spaces around it; an empty text is an empty list."""
    parts = [[part.strip() for part in (text or "").split(separator)] for text in texts.to_pylist()]
    return pa.array([[part for part in row if part] for row in parts], LISTS)


def chosen(columns: dict[str, pa.Array], *, name: str, rows: np.ndarray) -> pa.Array:
    """Columns of 0 and 1 as lists of the names of those that hold a 1.

    Raises:
        DataError: a value is neither.
    """
    is_set_NC = np.zeros((len(rows), len(columns)), dtype=bool)
    for c, (column, array) in enumerate(columns.items()):
        texts = pc.utf8_trim_whitespace(as_text(array, column=column, name=name, rows=rows))
        is_set, is_unset = (pc.fill_null(pc.is_in(texts, pa.array(kind)), False) for kind in (TRUE, FALSE))
        is_neither = ~(is_set.to_numpy(zero_copy_only=False) | is_unset.to_numpy(zero_copy_only=False))
        if is_neither.any():
            at = int(np.argmax(is_neither))
            told = f"holds {texts[at].as_py()[:50]!r}" if texts[at].as_py() else "is empty"
            remedy = "write 1 where the label applies and 0 where not, or remove the row"
            raise DataError(f"column '{column}' {told}, neither 0 nor 1", where=f"{name}:{rows[at]}", remedy=remedy)
        is_set_NC[:, c] = is_set.to_numpy(zero_copy_only=False)
    names = pa.array(list(columns), pa.string())
    return pa.ListArray.from_arrays(_offsets(is_set_NC.sum(1)), names.take(pa.array(np.nonzero(is_set_NC)[1])))


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def regrouped(lists: pa.ListArray, items: pa.Array) -> pa.ListArray:
    """Other items in lists of the same lengths."""
    return pa.ListArray.from_arrays(_offsets(pc.list_value_length(lists).to_numpy()), items)


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
