"""Several labels of a text, words and their tags, and folders of texts: from every format to the same columns."""

import io
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data import sources
from llmtune.data.forms import _spans
from llmtune.errors import DataError

CONLL = "-DOCSTART- -X- O\n\n# id = 1\nIn IN O\nParis NNP B-LOC\n\n \n中文 X B-ORG\n# X O\n😀 X O\n"
WORDS, TAGS = [["In", "Paris"], ["中文", "#", "😀"]], [["O", "B-LOC"], ["B-ORG", "O", "O"]]


def parquet(table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def words_of(table) -> list[list[str]]:
    rows = zip(table["text"].to_pylist(), table["spans"].to_pylist(), strict=True)
    return [[text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)] for text, spans in rows]


def load(data, form, **options):
    return sources.load(data, form=form, **options)["train"]


TAGGED = {
    "a.conll": CONLL,
    "crlf.conll": CONLL.replace("\n", "\r\n").replace(" ", "\t").replace("\t\r", "\r"),
    "a.jsonl": "".join(json.dumps({"text": words, "label": tags}) + "\n" for words, tags in zip(WORDS, TAGS, strict=True)),
    "a.parquet": parquet(pa.table({"text": pa.array(WORDS, pa.large_list(pa.string())), "label": TAGS})),
}


@pytest.mark.parametrize("name", TAGGED)
def test_words_and_tags(files, name):
    table = load(files({name: TAGGED[name]}), "tags")
    assert words_of(table) == WORDS and table["tags"].to_pylist() == TAGS
    assert table["text"].to_pylist() == ["In Paris", "中文 # 😀"]
    assert table["row"].to_pylist() == ([4, 8] if "conll" in name else [1, 2])


def test_columns_of_conll_can_be_named(files):
    data = files({"a.conll": CONLL}, column_names=["word", "pos", "ner"], text_column="word", label_column="pos")
    assert load(data, "tags")["tags"].to_pylist() == [["IN", "NNP"], ["X", "X", "X"]]


def test_words_alone(files):
    data = files({"a.conll": "a\nb\n\nc\n"})
    assert words_of(load(data, "tags", need_label=False)) == [["a", "b"], ["c"]]
    lines = files({"a.jsonl": '{"text": "no list"}\n'}, label_column=None)
    assert load(lines, "tags", need_label=False)["text"].to_pylist() == ["no list"]


def test_tags_of_a_hub_data_set_are_named(section, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-LOC"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    made = datasets.Dataset.from_dict({"tokens": [["In", "Paris"], ["So"]], "ner_tags": [[0, 1], [0]]}, features=features)
    made.to_parquet(tmp_path / "set" / "train.parquet")
    data = section("data/hub", name=str(tmp_path / "set"), text_column="tokens", label_column="ner_tags")
    table = load(data, "tags")
    assert words_of(table) == [["In", "Paris"], ["So"]] and table["tags"].to_pylist() == [["O", "B-LOC"], ["O"]]


@settings(deadline=None)
@given(st.lists(st.lists(st.text(min_size=1, max_size=4), max_size=4), min_size=1, max_size=6))
def test_spans_are_those_of_joined_words(rows):
    import numpy as np

    lengths = np.array([len(word) for row in rows for word in row], dtype=np.int64)
    found = _spans(lengths, np.array([len(row) for row in rows])).to_pylist()
    for row, spans in zip(rows, found, strict=True):
        assert [" ".join(row)[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True)] == row


LABELS = [["a", "b"], [], ["c"]]
LABELLED = {
    "lists": ("a.jsonl", '{"text": "x", "label": ["a", "b"]}\n{"text": "y", "label": []}\n{"text": "z", "label": ["c"]}\n', {}),
    "parquet": ("a.parquet", parquet(pa.table({"text": ["x", "y", "z"], "label": LABELS})), {}),
    "separator": ("a.csv", "text,label\nx,a | b\ny,\nz,c|\n", {"label_separator": "|"}),
    "columns": ("a.csv", "text,a,b,c\nx,1,true,0\ny,0,0,0.0\nz,False,0, 1\n", {"label_columns": ["a", "b", "c"]}),
    "truths": (
        "a.json",
        '[{"text":"x","a":1,"b":true,"c":0}, {"text":"y","a":0,"b":false,"c":0}, {"text":"z","a":0,"b":0,"c":1}]',
        {"label_columns": ["a", "b", "c"]},
    ),
}


@pytest.mark.parametrize("case", LABELLED.values(), ids=LABELLED)
def test_several_labels(files, case):
    name, content, changes = case
    table = load(files({name: content}, **changes), "labels")
    assert table["labels"].to_pylist() == LABELS and "label" not in table.column_names


def test_labels_in_lists_are_renamed(files):
    data = files({"a.jsonl": '{"text": "x", "label": ["1.0", " b"]}\n{"text": "y", "label": []}\n'})
    upper = lambda labels: pa.array([label.strip().upper() for label in labels.to_pylist()], pa.string())  # noqa: E731
    assert load(data, "labels", rename=upper)["labels"].to_pylist() == [["1.0", "B"], []]


def test_numbers_as_labels_are_text(files):
    assert load(files({"a.jsonl": '{"text": "x", "label": [1, 2.0]}\n'}), "labels")["labels"].to_pylist() == [["1", "2"]]


BAD = {
    "text as labels": ("labels", "a.csv", "text,label\nx,a\n", {}, ":2", ["data.label_separator"]),
    "no list of labels": ("labels", "a.jsonl", '{"text": "x", "label": ["a"]}\n{"text": "y"}\n', {}, ":2", ["is empty", "[]"]),
    "mixed": ("labels", "a.jsonl", '{"text": "x", "label": ["a"]}\n{"text": "y", "label": "b"}\n', {}, ":2", ["'b'"]),
    "null label": ("labels", "a.jsonl", '{"text": "x", "label": ["a", null]}\n', {}, ":1", ["empty item"]),
    "a share": ("labels", "a.csv", "text,a,b\nx,0,1\ny,0.3,1\n", {"label_columns": ["a", "b"]}, ":3", ["'a'", "'0.3'"]),
    "an empty share": ("labels", "a.csv", "text,a,b\nx,0,\n", {"label_columns": ["a", "b"]}, ":2", ["'b' is empty"]),
    "a column too few": ("labels", "a.csv", "text,a\nx,0\n", {"label_columns": ["a", "b"]}, ":1", ["data.label_columns"]),
    "another width": ("tags", "a.conll", "a O\nb\n", {}, ":2", ["expected 2 columns, got 1"]),
    "other names": ("tags", "a.conll", "a O\n", {"column_names": ["text", "pos", "label"]}, ":1", ["3 data.column_names"]),
    "no such column": ("tags", "a.conll", "a O\n", {"label_column": "ner"}, ":1", ["'text', 'label'", "data.column_names"]),
    "words only": ("tags", "a.conll", "a\nb\n", {}, ":1", ["no column 'label'"]),
    "an empty word": ("tags", "a.conll", "a\tO\n\tO\n", {}, ":1", ["an empty word"]),
    "more words": ("tags", "a.jsonl", '{"text": ["a", "b"], "label": ["O"]}\n', {}, ":1", ["2 words, but 1 tags"]),
    "text as words": ("tags", "a.csv", "text,label\na b,O O\n", {}, ":2", ["not lists", "CoNLL"]),
    "blank": ("tags", "a.conll", "\n\t\n", {}, "", ["no rows"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_annotations(files, tmp_path, name):
    form, file, content, changes, place, words = BAD[name]
    with pytest.raises(DataError) as caught:
        load(files({file: content}, **changes), form)
    assert caught.value.where == f"{tmp_path / file}{place}"
    for word in words:
        assert word in f"{caught.value.message} {caught.value.remedy}"


def test_an_endless_sentence(files, monkeypatch):
    monkeypatch.setattr("llmtune.data.readers.conll._LONGEST", 3)
    with pytest.raises(DataError, match="longer than 3 words"):
        load(files({"a.conll": "a O\n" * 4}), "tags")


@pytest.fixture
def tree(tmp_path, section):
    """Folders of texts, some of them with what does not belong there."""
    for name, content in {
        "train/pos/2.txt": "good\r\n",
        "train/pos/10.txt": "schön\nund gut",
        "train/neg/1.txt": "bad",
        "train/neg/notes.md": "x",
        "train/.git/x.txt": "x",
        "train/README": "x",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content.encode())
    return lambda name="train", **changes: section("data/files", train_file=str(tmp_path / name), **changes)


def test_folders_are_labels(tree, tmp_path, capsys):
    table = load(tree(), "label")
    assert table["text"].to_pylist() == ["bad", "schön\nund gut", "good"]
    assert table["label"].to_pylist() == ["neg", "pos", "pos"]
    assert table["file"].to_pylist() == [f"{tmp_path}/train/{name}.txt" for name in ("neg/1", "pos/10", "pos/2")]
    assert "1 entries beside the texts" in capsys.readouterr().err
    assert load(tree(where={"label": "pos"}), "label")["file"].to_pylist()[0].endswith("pos/10.txt")


def test_one_folder_is_one_label(tree):
    data = tree()
    both = data.model_copy(update={"train_file": (f"{data.train_file}/pos/", f"{data.train_file}/neg")})
    assert load(both, "label")["label"].to_pylist() == ["pos", "pos", "neg"]


def test_the_fingerprint_follows_names_and_texts(tree, tmp_path):
    before = sources.fingerprint(tree())
    assert len(before) == 1 and before == sources.fingerprint(tree())
    (tmp_path / "train/pos/2.txt").rename(tmp_path / "train/neg/2.txt")
    assert sources.fingerprint(tree()) != before


def test_an_empty_text_is_told(tree, tmp_path):
    (tmp_path / "train/pos/3.txt").touch()
    with pytest.raises(DataError, match="empty") as caught:
        load(tree(), "label")
    assert caught.value.where == f"{tmp_path}/train/pos/3.txt"
