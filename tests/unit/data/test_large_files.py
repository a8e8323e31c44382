"""Files that are read in parts: JSON by the object whatever the blocks, Parquet by the batch whatever the row groups."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.data import sources
from llmtune.data.readers import json_rows, parquet, stream
from llmtune.data.spool import Spool
from llmtune.errors import DataError

values = st.text(max_size=20) | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False) | st.none()


@given(
    rows=st.lists(st.fixed_dictionaries({"text": values, "é": st.lists(values, max_size=3)}), min_size=1, max_size=8),
    indent=st.sampled_from([None, 1]),
    size=st.integers(1, 40),
)
def test_json_by_the_object(rows, indent, size):
    """Cut anywhere: within a number, a word, an escape."""
    for written in (json.dumps(rows, indent=indent), f" \n{json.dumps(rows, ensure_ascii=False)}\n\n"):
        blocks = iter([written[i : i + size] for i in range(0, len(written), size)])
        assert list(json_rows._Stream(blocks, "a.json")) == rows


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ('[{"text": "a"},\n {"text": }]', "a.json:2", "column 11: Expecting value"),
        ('[{"text": "a"}\n {"text": "b"}]', "a.json:2", "column 2: Expecting ',' delimiter"),
        ('[{"text": "a"},\n', "a.json:2", "Expecting value"),
        ('[{"text": "a"}', "a.json:1", "column 15: Expecting ',' delimiter"),
        ('[{"text": "a', "a.json:1", "Unterminated string"),
        ('[{"text": "a"}]\n\nx', "a.json:3", "column 1: Extra data"),
        ('{"data": [{"text": "a"}]} {}', "a.json:1", "Extra data"),
        ('"text"', "a.json", "neither a list"),
        ('{"rows": []}', "a.json", "neither a list"),
        ("[1, 2]", "a.json:1", "expected an object"),
        ("", "a.json", "empty"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 1 << 20])
def test_bad_json_is_told_with_its_line(files, tmp_path, monkeypatch, text, where, words, size):
    monkeypatch.setattr(stream, "_BLOCK", size)
    with pytest.raises(DataError) as caught:
        sources.load(files({"a.json": text}), need_label=False)
    assert words in caught.value.message and caught.value.where == str(tmp_path / where)


def test_an_object_longer_than_a_block(files, monkeypatch):
    monkeypatch.setattr(stream, "_BLOCK", 100)
    rows = [{"text": "a" * 5000, "label": 1}, {"text": "b", "label": 0}]
    for content in (rows, {"other": [1, [2]], "data": rows}):
        read = sources.load(files({"a.json": json.dumps(content)}))["train"]
        assert read["text"].to_pylist() == ["a" * 5000, "b"] and read["row"].to_pylist() == [1, 2]


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet_with_long_texts_comes_in_small_batches(files, tmp_path, monkeypatch, name):
    monkeypatch.setattr(parquet, "_CHUNK_BYTES", 100_000)
    texts = [f"{i} {'x' * 1000}" for i in range(500)]
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"text": texts, "label": [i % 2 for i in range(500)]}), sink, compression="none", use_dictionary=False
    )
    content = gzip.compress(sink.getvalue()) if name.endswith("gz") else sink.getvalue()
    folder = tmp_path / "scratch"
    folder.mkdir()
    read = sources.load(files({name: content}), spool=Spool(folder))["train"]
    assert read["text"].to_pylist() == texts and read["row"].to_pylist() == list(range(1, 501))
    assert max(len(chunk) for chunk in read["text"].chunks) <= 100
    assert list(folder.iterdir()) == []


def test_more_columns_of_the_train_rows_alone(files):
    data = files(
        {"a.csv": "text,label,who\na,1,x\nb,0,y\n", "b.csv": "text,label\nc,1\n"}, test_file="b.csv", where={"label": "1"}
    )
    tables = sources.load(data, also={"group": ("who", "split.group_column")})
    assert tables["train"]["group"].to_pylist() == ["x"] and "group" not in tables["test"].column_names
    with pytest.raises(DataError, match="no column 'whom'") as caught:
        sources.load(data, also={"group": ("whom", "split.group_column")})
    assert "split.group_column" in caught.value.remedy
