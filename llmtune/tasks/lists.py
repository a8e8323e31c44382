"""Labels and tags that come as lists: in plain form, renamed, of one scheme, and their names."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune import console
from llmtune.data.readers.columns import listed
from llmtune.errors import DataError
from llmtune.tasks import tags
from llmtune.tasks.classification import label_order, plain_label
from llmtune.tasks.text import place


def renamed(table: pa.Table, column: str, names: Mapping[str, str]) -> tuple[pa.Table, set[str]]:
    """The table with the items of a column in plain form and renamed; and which of the names are there."""
    found: set[str] = set()

    def changed(rows: pa.ListArray) -> pa.ListArray:
        items = rows.flatten()
        given = items.unique()
        plain = [plain_label(item) for item in given.to_pylist()]
        found.update(set(plain) & set(names))
        new = pa.array([names.get(item, item) for item in plain], pa.string())
        return _regrouped(rows, new.take(pc.index_in(items, value_set=given)))

    return _mapped(table, column, changed), found


def as_bio(table: pa.Table) -> pa.Table:
    """The table with its tags in BIO, where they have prefixes; what was repaired is told."""
    num_repaired = 0

    def changed(rows: pa.ListArray) -> pa.ListArray:
        nonlocal num_repaired
        made, count = tags.as_bio(rows)
        num_repaired += count
        return made

    made = _mapped(table, "tags", changed)
    if num_repaired:
        console.notice(
            f"{table['file'][0]}: {num_repaired:,} tags I- follow no word of their type: they are read as B-, as scoring does"
        )
    return made


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


def _mapped(table: pa.Table, column: str, change) -> pa.Table:
    made = pa.chunked_array([change(chunk) for chunk in table[column].chunks], table.schema.field(column).type)
    return table.set_column(table.column_names.index(column), column, made)


def _regrouped(rows: pa.ListArray, items: pa.Array) -> pa.ListArray:
    lengths = pc.list_value_length(rows).to_numpy()
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), items)
