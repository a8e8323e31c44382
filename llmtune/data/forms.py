"""What the rows of a task hold beside their text: a label, several, tags of words, turns of a conversation, or two answers.

Prompts are conversations without their last answer.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.config.sections.data import ColumnMapping
from llmtune.data.readers.columns import Chunk, as_text
from llmtune.data.readers.lists import as_lists, chosen, divided, is_list, regrouped
from llmtune.errors import DataError

Form = Literal["label", "labels", "tags", "messages", "prompts", "preference"]
OF_TASK: dict[str, Form] = {
    "classification": "label",
    "regression": "label",
    "multilabel": "labels",
    "tagging": "tags",
    "causal_lm": "label",
    "masked_lm": "label",
    "instruction": "messages",
    "preference": "preference",
}
CONVERSATIONS = ("messages", "rejected")  # columns
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
NEED_LABEL = ("classification", "regression", "multilabel", "tagging")  # tasks that cannot be learned without


def lists(form: Form, data: ColumnMapping) -> tuple[str, ...]:
    """The columns that may hold lists."""
    names = {"label": (), "labels": (data.label_column,), "tags": (data.text_column, data.label_column)}.get(form, ())
    return tuple(name for name in names if name is not None)


def annotations(form: Form, data: ColumnMapping, name: str, chunk: Chunk) -> dict[str, pa.Array]:
    """The columns of rows of a form, as far as the chunk has them.

    `labels`: lists of strings, which may be empty. `tags`: lists of strings, one for each word of `text`, which are the words
    with a space between them; `spans`: lists of int32, where each word of the text begins and ends, in characters. `messages`:
    lists of {role, content}, of which `text` are the contents, each on a line of its own. `rejected`: the same conversation
    with another last answer, which is the end of the `text`.

    Raises:
        DataError: a column holds something else, or a row not as many words as tags.
    """
    if form == "labels" and (labels := _labels(data, name, chunk)) is not None:
        return {"labels": labels}
    if form == "tags":
        return _tagged(data, name, chunk)
    if form in ("messages", "prompts", "preference"):
        conversations = {column: pa.array(values, MESSAGES) for column, values in chunk.nested.items()}
        return {**conversations, "text": text_of(conversations)}
    return {}


def text_of(columns: Mapping[str, pa.Array]) -> pa.Array:
    """The contents of `messages` as one text each, and behind them the last of `rejected`, if there is such a column."""
    messages, rejected = columns["messages"], columns.get("rejected")
    text = pc.binary_join(regrouped(messages, pc.struct_field(messages.flatten(), "content")), "\n")
    if rejected is None:
        return text
    ends = pc.subtract(pc.cumulative_sum(pc.list_value_length(rejected)), 1)
    return pc.binary_join_element_wise(text, pc.struct_field(rejected.flatten(), "content").take(ends), "\n")


def with_contents(messages: pa.ListArray, change: Callable[[pa.Array], pa.Array]) -> pa.ListArray:
    """Conversations with other contents."""
    flat = messages.flatten()
    parts = [pc.struct_field(flat, "role"), change(pc.struct_field(flat, "content"))]
    return regrouped(messages, pa.StructArray.from_arrays(parts, ["role", "content"]))


def renamed(values: pa.Array, rename: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Labels, or lists of them, with other names."""
    return regrouped(values, rename(values.flatten())) if is_list(values.type) else rename(values)


def _labels(data: ColumnMapping, name: str, chunk: Chunk) -> pa.Array | None:
    if data.label_columns:
        given = {column: chunk.columns[column] for column in data.label_columns if column in chunk.columns}
        return chosen(given, name=name, rows=chunk.rows) if given else None
    column = data.label_column
    if column not in chunk.columns:
        return None
    array = chunk.columns[column]
    if data.label_separator is not None and not is_list(array.type):
        return divided(as_text(array, column=column, name=name, rows=chunk.rows), data.label_separator)
    if not is_list(array.type):
        raise DataError(
            f"column '{column}' holds text, not lists of labels",
            where=f"{name}:{chunk.rows[0]}",
            remedy="set data.label_separator to what divides them, such as '|', or data.label_columns to columns of 0 and 1",
        )
    return as_lists(array, column=column, key="data.label_column", name=name, rows=chunk.rows)


def _tagged(data: ColumnMapping, name: str, chunk: Chunk) -> dict[str, pa.Array]:
    column, rows = data.text_column, chunk.rows
    if not is_list(chunk.columns[column].type) and data.label_column not in chunk.columns:
        return {}  # plain text to predict for
    words = as_lists(chunk.columns[column], column=column, key="data.text_column", name=name, rows=rows)
    lengths = pc.utf8_length(words.values).to_numpy()
    counts = pc.list_value_length(words).to_numpy()
    if (lengths == 0).any():
        row = np.repeat(rows, counts)[np.argmax(lengths == 0)]
        raise DataError(f"column '{column}' holds an empty word", where=f"{name}:{row}", remedy="correct or remove it")
    found = {"text": pc.binary_join(words, " "), "spans": _spans(lengths, counts)}
    if data.label_column in chunk.columns:
        tags = as_lists(
            chunk.columns[data.label_column], column=data.label_column, key="data.label_column", name=name, rows=rows
        )
        num_tags = pc.list_value_length(tags).to_numpy()
        if (differs := num_tags != counts).any():
            at = int(np.argmax(differs))
            message = f"the row has {counts[at]} words, but {num_tags[at]} tags"
            raise DataError(message, where=f"{name}:{rows[at]}", remedy="correct or remove the row")
        found["tags"] = tags
    return found


def _spans(lengths_M: np.ndarray, counts_N: np.ndarray) -> pa.Array:
    """Where words that are joined with a space begin and end, as lists of both in turns."""
    firsts = np.concatenate([[0], np.cumsum(counts_N)])
    ends_M = np.cumsum(lengths_M + 1) - 1  # in all texts as one
    row_starts = np.concatenate([[0], ends_M + 1])[firsts[:-1]]
    ends_M = ends_M - np.repeat(row_starts, counts_N)
    both = np.stack([ends_M - lengths_M, ends_M], axis=1).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array((2 * firsts).astype(np.int32)), pa.array(both.ravel()))
