import os

import numpy as np
import pyarrow as pa
import pytest

from llmtune.data.spool import Spool, batches_of


def batch(start: int, *, rows: int = 3, label: bool = True, name: str = "a") -> pa.RecordBatch:
    columns = {"text": [f"text {start + i}" for i in range(rows)]}
    if label:
        columns["label"] = pa.array(["x"] * rows, pa.string())
    columns["file"] = pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int32), [name])
    return pa.RecordBatch.from_pydict(columns)


@pytest.fixture(params=["memory", "small", "disk"])
def spool(request, tmp_path):
    return Spool() if request.param == "memory" else Spool(tmp_path, limit=1 if request.param == "disk" else 1 << 20)


def test_a_table_is_its_batches(spool):
    made = spool.table(batch(start, name=name) for start, name in ((0, "a"), (3, "b"), (6, "a")))
    assert made["text"].to_pylist() == [f"text {i}" for i in range(9)]
    assert made["file"].to_pylist() == ["a"] * 3 + ["b"] * 3 + ["a"] * 3


def test_a_column_that_some_batches_lack_is_null_there(spool):
    made = spool.table([batch(0), batch(3, label=False), batch(6)])
    assert made["label"].to_pylist() == ["x"] * 3 + [None] * 3 + ["x"] * 3
    assert made["text"].to_pylist() == [f"text {i}" for i in range(9)]


def test_no_batches_make_no_table(spool):
    assert spool.table([]) is None


def test_filtered_rows_keep_their_order(spool):
    made = spool.table([batch(0), batch(3)])
    assert spool.filtered(made, np.array([0, 1, 1, 0, 0, 1], dtype=bool))["text"].to_pylist() == ["text 1", "text 2", "text 5"]
    nothing = spool.filtered(made, np.zeros(6, dtype=bool))
    assert (nothing.num_rows, nothing.column_names) == (0, made.column_names)


def test_a_large_table_lies_on_disk_and_leaves_no_file(tmp_path):
    before = pa.total_allocated_bytes()
    made = Spool(tmp_path, limit=1 << 20).table(batch(start, rows=10_000) for start in range(0, 300_000, 10_000))
    assert made.num_rows == 300_000
    assert pa.total_allocated_bytes() - before < made.nbytes / 3
    assert os.listdir(tmp_path) == []
    assert made["text"][299_999].as_py() == "text 299999"


def test_batches_hold_so_many_rows_or_bytes():
    table = pa.table({"text": ["a" * 1000] * 50 + ["b"] * 50})
    sizes = [batch.num_rows for batch in batches_of(table, rows=40, size=10_000)]
    assert sum(sizes) == 100 and max(sizes) <= 40 and max(sizes[:5]) <= 10
    assert [batch.num_rows for batch in batches_of(table[:3], rows=40, size=10)] == [1, 1, 1]
    assert list(batches_of(table[:0], rows=40, size=10)) == []
