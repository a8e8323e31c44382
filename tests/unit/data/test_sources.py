"""Every reader gives the same canonical rows, and what the config asks for is applied to them."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmtune.data import sources

ROWS = [
    {"text": 'He said "hi", twice', "label": "very good"},
    {"text": "NA", "label": "null"},
    {"text": "你好 wörld", "label": "1"},
    {"text": "", "label": "None"},
]


def delimited(rows, delimiter=",", quoting=csv.QUOTE_MINIMAL, end="\n", header=True):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, quoting=quoting, lineterminator=end, quotechar='"')
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


WRITERS = {
    "csv": delimited,
    "tsv": lambda rows: delimited(rows, "\t"),
    "json": lambda rows: json.dumps(rows).encode(),
    "jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    "ndjson": lambda rows: "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
    "parquet": lambda rows: parquet(pa.Table.from_pylist(rows)),
}
FIRST_ROW = {"csv": 2, "tsv": 2}


def rows_of(data, split="train", **options):
    table = sources.load(data, **options)[split]
    return table.select([name for name in table.column_names if name not in ("file", "row")]).to_pylist()


def texts_of(data, split="train", seed=0):
    return sources.load(data, need_label=False, seed=seed)[split]["text"].to_pylist()


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_rows(files, tmp_path, kind, gzipped):
    content = WRITERS[kind](ROWS)
    name = f"a.{kind}.gz" if gzipped else f"a.{kind}"
    table = sources.load(files({name: gzip.compress(content) if gzipped else content}))["train"]
    assert table.select(["text", "label"]).to_pylist() == ROWS
    first = FIRST_ROW.get(kind, 1)
    assert table["row"].to_pylist() == list(range(first, first + len(ROWS)))
    assert set(table["file"].to_pylist()) == {str(tmp_path / name)}


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        (b"text,label\r\na,1\r\n\r\nb,2\r\n", {}),
        (b"text,label\ra,1\rb,2", {}),
        (b"\xef\xbb\xbftext,label\na,1\nb,2\n", {}),
        (b'\xef\xbb\xbf"text","label"\na,1\nb,2\n', {}),
        (b"\n\ntext,label\na,1\n\n\nb,2\n\n", {}),
        (b"a,1\nb,2\n", {"column_names": ["text", "label"]}),
        (b"text;label\na;1\nb;2\n", {"delimiter": ";"}),
        (b"text|label\na|1\nb|2\n", {"delimiter": "|"}),
        (b"text\tlabel\na\t1\nb\t2\n", {"delimiter": "\t"}),
        (b"text\tlabel\na\t1\nb\t2\n", {"format": "tsv"}),
        (b'{"text": "a", "label": 1}\n\n{"label": 2.0, "text": "b", "more": [1]}', {"format": "jsonl"}),
        (b'\xef\xbb\xbf{"data": [{"text": "a", "label": 1.0}, {"text": "b", "label": 2}]}', {"format": "json"}),
        (b"unused,label,text,unused\n1,1,a,2\n3,2,b,4\n", {}),
    ],
)
def test_the_many_ways_to_write_two_rows(files, content, changes):
    assert rows_of(files({"a.csv": content}, **changes)) == [{"text": "a", "label": "1"}, {"text": "b", "label": "2"}]


def test_a_quoted_field_keeps_delimiters_quotes_and_line_ends(files):
    data = files({"a.csv": 'text,label\n"one, ""two""\nthree",x\nfour,y\n'})
    table = sources.load(data)["train"]
    assert table["text"].to_pylist() == ['one, "two"\nthree', "four"]
    assert table["row"].to_pylist() == [2, 4]


def test_without_quoting_quotes_are_text(files):
    data = files({"a.tsv": 'text\tlabel\n"Oh\t1\nsaid 5" and\t2\n'}, quoting=False)
    assert rows_of(data) == [{"text": '"Oh', "label": "1"}, {"text": 'said 5" and', "label": "2"}]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_plain_text_is_lines_with_their_ends(files, name):
    content = b"\xef\xbb\xbfone\r\n\ntwo \rthree"
    data = files({name: gzip.compress(content) if name.endswith(".gz") else content}, label_column=None)
    assert texts_of(data) == ["one\n", "\n", "two \n", "three"]
    assert sources.is_plain_text(data)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, -2], pa.int8()), ["1", "-2"]),
        (pa.array([1.0, 0.5]), ["1", "0.5"]),
        (pa.array([1.0, float("nan")]), ["1", "nan"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["x", None]), ["x", None]),
        (pa.array([None, None], pa.null()), [None, None]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_typed_columns_become_text(files, values, texts):
    data = files({"a.parquet": parquet(pa.table({"text": ["a", "b"], "label": values}))})
    assert [row["label"] for row in rows_of(data)] == texts


def test_json_values_become_text_as_csv_would_hold_them(files):
    values = ["x", 1, 1.0, 2.5, True, None, 10**20]
    data = files({"a.json": json.dumps([{"text": "t", "label": value} for value in values])})
    assert [row["label"] for row in rows_of(data)] == ["x", "1", "1", "2.5", "true", None, "1" + "0" * 20]


def test_columns_are_mapped(files):
    data = files(
        {"a.csv": "premise,hypothesis,gold,x,y\np,h,yes,1,2.5\nq,i,no,-1e3, 4 \n"},
        text_column="premise",
        text_pair_column="hypothesis",
        label_column="gold",
        feature_columns=["y", "x"],
    )
    assert rows_of(data) == [
        {"text": "p", "text_pair": "h", "label": "yes", "features": [2.5, 1.0]},
        {"text": "q", "text_pair": "i", "label": "no", "features": [4.0, -1000.0]},
    ]


def test_where_keeps_rows_that_are_equal_in_every_column(files):
    content = "text,label,source,lang\na,1,x,en\nb,2,x,de\nc,1,y,en\nd,2,x,en\n"
    data = files({"a.csv": content}, where={"source": "x", "lang": "en"})
    table = sources.load(data)["train"]
    assert table["text"].to_pylist() == ["a", "d"]
    assert table["row"].to_pylist() == [2, 5]


def test_where_compares_numbers_and_gaps_as_text(files):
    content = '{"text": "a", "label": 1, "year": 2020}\n{"text": "b", "label": 1}\n{"text": "c", "label": 1, "year": 2020.0}\n'
    assert texts_of(files({"a.jsonl": content}, where={"year": "2020"})) == ["a", "c"]


def test_max_rows_draws_with_the_seed_and_keeps_the_order(files):
    content = "text,label\n" + "".join(f"{i},x\n" for i in range(200))
    data = files({"a.csv": content, "b.csv": content}, validation_file="b.csv", max_rows=20)
    drawn = {
        (seed, split): [int(t) for t in texts_of(data, split, seed=seed)]
        for seed in (0, 1)
        for split in ("train", "validation")
    }
    assert all(len(texts) == 20 and texts == sorted(texts) for texts in drawn.values())
    assert len({tuple(texts) for texts in drawn.values()}) == 4
    assert drawn[0, "train"] == [int(t) for t in texts_of(data, seed=0)]
    assert len(texts_of(data.model_copy(update={"max_rows": 1000}))) == 200


def test_several_files_and_patterns(files, tmp_path):
    contents = {f"part-{i}.csv": f"text,label\n{i},x\n" for i in (3, 1, 2)} | {"deep/er.jsonl": '{"text": "j", "label": "x"}\n'}
    data = files(contents, train_file=["deep/er.jsonl", "part-*.csv"])
    table = sources.load(data)["train"]
    assert table["text"].to_pylist() == ["j", "1", "2", "3"]
    assert table["file"].to_pylist()[1] == str(tmp_path / "part-1.csv")
    assert texts_of(files({}, train_file="**/*.jsonl")) == ["j"]


def test_a_pattern_goes_by_the_names_whatever_the_folder_says(files, monkeypatch):
    data = files({f"{name}.csv": f"text,label\n{name},x\n" for name in "abc"}, train_file="*.csv")
    found = sources.glob.glob(data.train_file)
    monkeypatch.setattr("glob.glob", lambda *args, **options: sorted(found, reverse=True))
    assert texts_of(data) == ["a", "b", "c"]


def test_a_name_with_a_star_that_exists_is_no_pattern(files):
    assert texts_of(files({"a*.csv": "text,label\nstar,x\n", "ab.csv": "text,label\nother,x\n"})) == ["star"]


def test_an_optional_label_may_stand_in_some_files_only(files):
    data = files({"a.csv": "text,label\na,1\n", "b.csv": "text\nb\n"}, train_file=["a.csv", "b.csv"])
    assert rows_of(data, need_label=False) == [{"text": "a", "label": "1"}, {"text": "b", "label": None}]


def test_a_file_within_a_package(section):
    data = section("data/files", train_file="package:llmtune/demo/line.csv", text_column="x", label_column="y", max_rows=3)
    assert len(rows_of(data)) == 3


def test_given_splits_are_loaded(files):
    contents = {f"{name}.csv": f"text,label\n{name},x\n" for name in ("train", "validation", "test")}
    data = files(contents, validation_file="validation.csv", test_file="test.csv")
    assert {name: table["text"].to_pylist() for name, table in sources.load(data).items()} == {
        name: [name] for name in ("train", "validation", "test")
    }


def test_many_rows_across_blocks_keep_their_numbers(files):
    lines = [f'"{i} {"x" * 90}",l\n' for i in range(45_000)]
    table = sources.load(files({"a.csv": "text,label\n" + "".join(lines)}))["train"]
    assert [int(t.split()[0]) for t in table["text"].to_pylist()] == list(range(45_000))
    assert table["row"].to_pylist() == list(range(2, 45_002))


def test_a_character_cut_by_a_block_is_whole(files):
    text = "é" * 700_000  # odd offset: the cut at 1 MiB goes through a character
    assert texts_of(files({"a.csv": f"text,label\n{text},x\n"})) == [text]


def test_the_fingerprint_follows_content(files):
    data = files({"a.csv": "text,label\na,1\n"})
    before = sources.fingerprint(data)
    assert sources.fingerprint(data) == before
    files({"a.csv": "text,label\na,2\n"})
    assert sources.fingerprint(data) != before
