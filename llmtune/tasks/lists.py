"""The names of labels and tags that come as lists."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from llmtune import console
from llmtune.data.readers.columns import listed
from llmtune.errors import DataError
from llmtune.tasks import tags
from llmtune.tasks.classification import label_order
from llmtune.tasks.text import place


def label_names_of(train: pa.Table, given: Sequence[str] = ()) -> list[str]:
    """The names of the labels: those of the columns of 0 and 1, else the sorted ones of the train rows.

    Raises:
        DataError: a label is empty, or there is none at all.
    """
    found = _distinct(train["labels"])
    if unused := [name for name in given if name not in found]:
        console.notice(f"no train row has the label {listed(unused)}: it cannot be learned")
    if "" in found:
        raise DataError("a label is empty", where=_place_of(train, "labels", ""), remedy="correct or remove it")
    if not found:
        raise DataError(f"none of the {train.num_rows:,} train rows has a label: there is nothing to learn")
    return list(given) or label_order(found)


def tag_names_of(train: pa.Table) -> list[str]:
    """O first, and of each type B- and I-; or the sorted tags, where they have no prefixes.

    Raises:
        DataError: only some have prefixes, one is empty, or there is nothing to tell apart.
    """
    found = _distinct(train["tags"])
    place_of = lambda tag: _place_of(train, "tags", tag)  # noqa: E731
    if "" in found:
        raise DataError("a tag is empty", where=place_of(""), remedy="correct it: O is the tag of a word outside of entities")
    tags.require_one_scheme(found, place_of)
    return tags.names_of(found)


def _distinct(column: pa.ChunkedArray) -> list[str]:
    return sorted({item for chunk in column.chunks for item in chunk.flatten().unique().to_pylist()})


def _place_of(table: pa.Table, column: str, item: str) -> str:
    rows = table[column].combine_chunks()
    at = pc.index(rows.flatten(), item).as_py()
    return place(table, rows.value_parent_indices()[at].as_py())
