"""Data sets of the Hugging Face hub, and local directories that the datasets library reads."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.config.sections.data import HubData
from llmtune.data.readers.columns import CHUNK_ROWS, Chunk, Wanted, chunk_of
from llmtune.data.readers.lists import is_list
from llmtune.errors import DataError


def read(data: HubData, split: str, wanted: Wanted) -> Iterator[Chunk]:
    """Rows of one split, numbered from 1; class ids become class names, and the id -1 of an unlabelled row none.

    Raises:
        DataError: there is no such data set or split, no network, or a column is missing.
    """
    where = f"{data.name}[{split}]"
    rows = _load(data, split)
    wanted = wanted.of(rows.column_names, where=where)
    found = wanted.among(rows.column_names, where=where)
    class_names = {name: _class_names(rows.features[name]) for name in found}
    first = 1
    for table in rows.select_columns(found).with_format("arrow").iter(batch_size=CHUNK_ROWS):
        columns = {}
        for name in found:
            array = table[name].combine_chunks()
            columns[name] = _named(array, class_names[name]) if class_names[name] else array
        yield chunk_of(columns, np.arange(first, first + table.num_rows), wanted)
        first += table.num_rows


def _load(data: HubData, split: str) -> Any:
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(data.name, data.subset, split=split, revision=data.revision)
    except Exception as e:  # the library raises what lies beneath: OSError, ValueError, and those of its network client
        told = (str(e).strip() or type(e).__name__).splitlines()[0]
        remedy = "check data.name, data.subset and the names of the splits"
        if not Path(data.name).is_dir():
            remedy += (
                "; without a network set HF_HUB_OFFLINE=1 to use what was downloaded before, or read files with data=files"
            )
        raise DataError(f"the data set cannot be loaded: {told}", where=f"{data.name}[{split}]", remedy=remedy) from None


def _class_names(feature: Any) -> list[str] | None:
    """The names that the ids of a column, or of lists in it, stand for."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def _named(ids: pa.Array, names: list[str]) -> pa.Array:
    if is_list(ids.type):
        lengths = pc.fill_null(pc.list_value_length(ids), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, _named(ids.flatten(), names))
    return pa.array([names[i] if i is not None and i >= 0 else None for i in ids.to_pylist()], pa.string())
