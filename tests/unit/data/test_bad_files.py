"""What is wrong with a file is told with its place and the remedy, at once, and never waited for."""

import gzip
import io
import json
import os
import socket
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmtune.data import sources
from llmtune.data.readers import stream
from llmtune.errors import DataError

LONG = stream.MAX_FIELD + 1


def parquet(table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def not_utf8() -> pa.Array:
    """Two texts, the second of which is no UTF-8."""
    return pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"ab\xff")])


GOOD = parquet(pa.table({"text": ["a", "b"] * 500, "label": ["x", "y"] * 500}))

# name: (file, content, changes, place behind the file's name, what the message and the remedy say)
CASES = {
    "empty": ("a.csv", b"", {}, "", ["empty"]),
    "empty gzip": ("a.csv.gz", gzip.compress(b""), {}, "", ["nothing but blank lines"]),
    "blank": ("a.csv", b"\n\r\n\n", {}, "", ["blank lines"]),
    "blank text": ("a.jsonl", b"\n\n", {}, "", ["no rows"]),
    "only a header": ("a.csv", b"text,label\n", {}, "", ["a header line but no rows"]),
    "only a byte order mark": ("a.csv", b"\xef\xbb\xbf", {}, "", ["nothing but blank lines"]),
    "no list": ("a.json", b"[]", {}, "", ["no rows"]),
    "missing column": ("a.csv", b"txt,label,id\na,b,c\n", {}, ":1", ["'text'", "'txt', 'label', 'id'", "data.text_column"]),
    "missing label": ("a.csv", b"text,lable\na,b\n", {}, ":1", ["'label'", "'lable'", "data.label_column"]),
    "missing pair": (
        "a.csv",
        b"text,label\na,b\n",
        {"text_pair_column": "second"},
        ":1",
        ["'second'", "data.text_pair_column"],
    ),
    "missing where": ("a.csv", b"text,label\na,b\n", {"where": {"lang": "en"}}, ":1", ["'lang'", "data.where"]),
    "missing header": ("a.csv", b"a,b\nc,d\n", {}, ":1", ["data.column_names"]),
    "missing in json": ("a.json", b'[{"txt": "a", "label": 1}]', {}, "", ["'text'", "'txt'"]),
    "missing in jsonl": ("a.jsonl", b'{"txt": "a", "label": 1}\n' * 3, {}, "", ["'text'", "'txt'"]),
    "nothing in json": ("a.jsonl", b"{}\n", {}, "", ["no column 'text'"]),
    "missing number in jsonl": (
        "a.jsonl",
        b'{"text": "a", "label": 1}\n',
        {"feature_columns": ["x"]},
        "",
        ["'x'", "'text', 'label'"],
    ),
    "missing in parquet": ("a.parquet", parquet(pa.table({"t": ["a"], "label": ["b"]})), {}, "", ["'text'", "'t'"]),
    "another delimiter": ("a.csv", b"text;label\na;b;c\n", {}, ":1", ["data.delimiter=';'"]),
    "tabs in csv": ("a.csv", b"text\tlabel\na\n", {}, ":1", ["data.format=tsv"]),
    "column twice": ("a.csv", b"text,label,text\na,b,c\n", {}, ":1", ["several columns 'text'"]),
    "named twice": ("a.csv", b"a,b,c\n", {"column_names": ["text", "label", "text"]}, ":1", ["several columns 'text'"]),
    "ragged, long": ("a.csv", b'text,label\n"a\nb",x\na,b,c\n', {}, ":4", ["expected 2 fields, got 3", "double quotes"]),
    "ragged, short": ("a.csv", b"text,label\na,x\nb\n", {}, ":3", ["expected 2 fields, got 1", "complete or remove"]),
    "ragged without quotes": ("a.csv", b"text,label\n'a,b',x\n", {"quoting": False}, ":2", ["got 3", "data.quoting=true"]),
    "too many names": ("a.csv", b"a,b\n", {"column_names": ["text", "label", "id"]}, ":1", ["data.column_names", "got 2"]),
    "open quote": ("a.csv", b'text,label\nfine,x\n"a,b\nc,d\n', {}, ":3", ["never closed", "data.quoting=false"]),
    "open quote in the header": ("a.csv", b'"text,label\na,b\n', {}, ":1", ["never closed"]),
    "text behind a quote": ("a.csv", b'text,label\nfine,"b"\n"a" b,c\n', {}, ":3", ["the field goes on behind it"]),
    "bad json line": (
        "a.jsonl",
        b'{"text": "a", "label": 1}\n\n{"text": "a" "label": 1}\n',
        {},
        ":3",
        ["column 14", "correct"],
    ),
    "cut json line": ("a.jsonl", b'{"text": "a", "label": 1}\n{"text": "a', {}, ":2", ["bad JSON"]),
    "no object": ("a.jsonl", b'{"text": "a", "label": 1}\n["a", 1]\n', {}, ":2", ["expected an object", '["a", 1]']),
    "bad json": ("a.json", b'[{"text": "a", "label": 1},\n {"text": }]', {}, ":2", ["bad JSON in column 11"]),
    "lines as json": ("a.json", b'{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n', {}, ":2", ["data.format=jsonl"]),
    "mapping as json": ("a.json", b'{"a": {"text": "b"}}', {}, "", ["list of objects"]),
    "deep json": ("a.json", b"[" * 100_000, {}, "", ["bad JSON"]),
    "deep jsonl": ("a.jsonl", b'{"text": ' + b"[" * 100_000, {}, ":1", ["bad JSON"]),
    "list as text": (
        "a.jsonl",
        b'{"text": "a", "label": 1}\n{"text": ["a", "b"], "label": 1}\n',
        {},
        ":2",
        ["'text'", "a list"],
    ),
    "mapping as label": ("a.json", b'[{"text": "a", "label": {"id": 1}}]', {}, ":1", ["'label'", "a mapping"]),
    "half a surrogate": ("a.jsonl", b'{"text": "\\ud83d", "label": 1}\n', {}, ":1", ["surrogate"]),
    "latin-1": ("a.csv", "text,label\nok,x\ncafé,y\n".encode("latin-1"), {}, ":3", ["byte 19", "0xe9", "data.encoding=cp1252"]),
    "cut character": ("a.csv", "text,label\nok,é".encode()[:-1], {}, ":2", ["byte 14"]),
    "utf-16": ("a.csv", "text,label\na,b\n".encode("utf-16"), {}, "", ["UTF-16", "data.encoding=utf-16"]),
    "nul": ("a.csv", b"text,label\na\0b,x\n", {}, ":2", ["NUL character at byte 12"]),
    "nul in jsonl": ("a.jsonl", b'{"text": "\xc3\xa9", "label": 1}\n\0', {}, ":2", ["NUL character at byte 27"]),
    "long line": ("a.csv", b"text,label\nfine,x\n" + b"a" * LONG + b",x\n", {}, ":3", ["10,000,000"]),
    "long text line": ("a.txt", b"a" * 3 * LONG, {"label_column": None}, ":1", ["10,000,000"]),
    "long quote": ("a.csv", b'text,label\n"' + b"a\n" * LONG, {}, ":2", ["still not closed"]),
    "long json value": (
        "a.json",
        b'[{"text": "' + b"a" * LONG + b'", "label": 1}]',
        {},
        ":1",
        ["longer than 10,000,000 bytes"],
    ),
    "long parquet value": (
        "a.parquet",
        parquet(pa.table({"text": ["a", "b" * LONG], "label": ["x", "y"]})),
        {},
        ":2",
        ["longer"],
    ),
    "cut parquet": ("a.parquet", GOOD[:-20], {}, "", ["damaged or cut off"]),
    "parquet without end": ("a.parquet", GOOD[: len(GOOD) // 2], {}, "", ["damaged or cut off"]),
    "damaged parquet": ("a.parquet", GOOD[:4] + b"\xff" * 200 + GOOD[204:], {}, "", ["damaged or cut off"]),
    "no parquet": ("a.parquet", b"text,label\na,b\n", {}, "", ["damaged or cut off"]),
    "parquet of lists": (
        "a.parquet",
        parquet(pa.table({"text": [["a"]], "label": ["x"]})),
        {},
        "",
        ["list<", "choose another column"],
    ),
    "parquet of bytes": ("a.parquet", parquet(pa.table({"text": [b"a"], "label": ["x"]})), {}, "", ["binary"]),
    "parquet not utf-8": (
        "a.parquet",
        parquet(pa.table({"text": not_utf8(), "label": ["x", "y"]})),
        {},
        ":2",
        ["invalid UTF-8 at byte 1"],
    ),
    "cut gzip": (
        "a.csv.gz",
        gzip.compress(b"text,label\n" + os.urandom(9).hex().encode() * 500 + b",x\n")[:-9],
        {},
        "",
        ["cut off"],
    ),
    "damaged gzip": ("a.csv.gz", gzip.compress(b"text,label\na,b\n")[:-8] + b"\xff" * 8, {}, "", ["gzip file is damaged"]),
    "no gzip": ("a.csv.gz", b"text,label\na,b\n", {}, "", ["gzip file is damaged"]),
    "no number": ("a.csv", b"x,label\n1,1\none,2\n", {"feature_columns": ["x"], "text_column": None}, ":3", ["'x'", "'one'"]),
    "empty number": ("a.csv", b"x,label\n1,1\n,2\n", {"feature_columns": ["x"], "text_column": None}, ":3", ["'x' is empty"]),
    "infinite number": (
        "a.csv",
        b"x,label\n1,1\ninf,2\n",
        {"feature_columns": ["x"], "text_column": None},
        ":3",
        ["finite number"],
    ),
    "huge number": (
        "a.csv",
        b"x,label\n1,1\n-1e39,2\n",
        {"feature_columns": ["x"], "text_column": None},
        ":3",
        ["finite number"],
    ),
    "nan number": (
        "a.json",
        b'[{"x": NaN, "label": 1}]',
        {"feature_columns": ["x"], "text_column": None},
        ":1",
        ["finite number"],
    ),
    "unknown ending": ("a.doc", b"text,label\na,b\n", {}, "", [".csv", "data.format"]),
    "delimiter of json": ("a.jsonl", b'{"text": "a"}', {"delimiter": ";"}, "", ["data.delimiter", "jsonl", "null"]),
    "text with a label": ("a.txt", b"a\n", {}, "", ["plain text has this one column"]),
}


def error_of(data, **options) -> DataError:
    started = time.process_time()
    with pytest.raises(DataError) as caught:
        sources.fingerprint(data)
        sources.load(data, **options)
    assert time.process_time() - started < 5
    assert caught.value.exit_code == 3
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_told(files, tmp_path, name):
    file, content, changes, place, words = CASES[name]
    error = error_of(files({file: content}, **changes))
    assert error.where == f"{tmp_path / file}{place}"
    assert len(error.message) < 500
    for word in words:
        assert word in f"{error.message} {error.remedy}"


def test_the_second_file_is_named(files, tmp_path):
    data = files({"a.csv": "text,label\na,b\n", "b.csv": "text,label\na\n"}, train_file=["a.csv", "b.csv"])
    assert error_of(data).where == f"{tmp_path / 'b.csv'}:2"


@pytest.mark.parametrize("names", [["a.csv", "a.csv"], ["a.csv", "*.csv"]])
def test_a_file_named_twice(files, tmp_path, names):
    error = error_of(files({"a.csv": "text,label\na,b\n"}, train_file=names))
    assert "twice" in error.message and error.where == str(tmp_path / "a.csv")


def test_a_byte_far_into_the_file_is_counted(files, tmp_path):
    content = b"text,label\n" + "é,x\n".encode() * 500_000 + b"\xff,x\n"
    error = error_of(files({"a.csv": content}))
    assert f"byte {len(content) - 4} " in error.message
    assert error.where == f"{tmp_path / 'a.csv'}:500002"


def test_nothing_matches_where(files):
    data = files({"a.csv": "text,label,lang\na,b,en\nc,d,de\n"}, where={"lang": "fr"})
    error = error_of(data)
    assert error.where == "data.where" and "'en', 'de'" in error.remedy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.csv", ["no file", "the folder holds present.csv"]),
        ("none/missing.csv", ["no file", "no folder"]),
        ("present.csv/x.csv", ["no file"]),
        ("*.tsv", ["no file matches"]),
        ("folder", ["is a directory", "folder/*.csv"]),
        ("x" * 300 + ".csv", ["cannot be read"]),
        ("nul\0.csv", ["cannot be read"]),
        ("loop.csv", ["cannot be read"]),
    ],
)
def test_a_name_that_is_no_file(files, tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    error = error_of(files({"present.csv": "text,label\na,b\n"}, train_file=name))
    for word in words:
        assert word in f"{error.message} {error.remedy}"


@pytest.mark.parametrize("name", ["pipe.csv", "/dev/zero", "socket.csv"])
def test_what_is_no_regular_file_is_not_waited_for(files, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.csv")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.csv")
        error = error_of(files({}, train_file=name, format="csv"))
    assert "not a regular file" in error.message


def test_a_file_without_permission(files, tmp_path, monkeypatch):
    data = files({"a.csv": "text,label\na,b\n"})

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        sources.load(data)


@pytest.mark.parametrize("change", ["append", "replace"])
def test_a_file_that_changes_while_it_is_read(files, tmp_path, monkeypatch, change):
    data = files({"a.csv": "text,label\na,b\n", "new.csv": "text,label\nc,d\n"})
    path, read = tmp_path / "a.csv", sources.READERS["csv"]

    def read_and_change(source, wanted):
        yield from read(source, wanted)
        if change == "append":
            with path.open("a") as file:
                file.write("e,f\n")
        else:
            (tmp_path / "new.csv").replace(path)

    monkeypatch.setitem(sources.READERS, "csv", read_and_change)
    error = error_of(data)
    assert "changed while it was read" in error.message and error.where == str(path)


def test_messages_stay_short(files):
    row = {f"column-{i}": "v" * 1000 for i in range(2000)}
    error = error_of(files({"a.json": json.dumps([row])}))
    assert len(error.message) < 500 and "..." in error.message
