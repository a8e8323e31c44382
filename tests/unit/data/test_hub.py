"""`data=hub` on local directories, as datasets.load_dataset reads them."""

import datasets
import pytest

from llmtune.data import sources
from llmtune.errors import DataError


@pytest.fixture
def hub(section, tmp_path, monkeypatch):
    """`hub({"train.csv": text}, ...)`: a data set directory, and the data section for it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()

    def make(contents, **changes):
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return section("data/hub", name=str(folder), **changes)

    return make


def test_a_directory_of_csv_files(hub):
    data = hub({"train.csv": b"text,label\na,1\nb,0\n", "test.csv": b"text,label\nc,1\n"}, test_split="test")
    tables = sources.load(data)
    assert tables["train"].select(["text", "label", "row"]).to_pylist() == [
        {"text": "a", "label": "1", "row": 1},
        {"text": "b", "label": "0", "row": 2},
    ]
    assert tables["test"]["text"].to_pylist() == ["c"]
    assert tables["test"]["file"][0].as_py() == f"{data.name}[test]"


def test_class_ids_become_names(hub, tmp_path):
    labels = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=labels)
    data = hub({}, where={"label": "good"})
    made.to_parquet(tmp_path / "set" / "train.parquet")
    assert sources.load(data.model_copy(update={"where": {}}))["train"]["label"].to_pylist() == ["good", "bad", None]
    assert sources.load(data)["train"]["text"].to_pylist() == ["a"]


def test_the_fingerprint_follows_the_files_empty_ones_included(hub, tmp_path):
    data = hub({"train.csv": b"text,label\na,1\n", ".gitkeep": b""})
    before = sources.fingerprint(data)
    (tmp_path / "set" / "train.csv").write_bytes(b"text,label\nb,1\n")
    assert sources.fingerprint(data) != before
    assert sources.load(data)["train"]["text"].to_pylist() == ["b"]


@pytest.mark.parametrize(
    ("contents", "changes", "words"),
    [
        ({"train.csv": b"text,label\na,1\n"}, {"validation_split": "dev"}, ["[dev]", "names of the splits"]),
        ({"train.csv": b"text,lable\na,1\n"}, {}, ["'label'", "'lable', 'text'", "[train]"]),
        ({"train.jsonl": b'{"text": "a", "label": \n'}, {}, ["cannot be loaded", "[train]"]),
        ({}, {}, ["cannot be loaded", "[train]"]),
        ({"train.csv": b"text,label\na,1\n"}, {"where": {"label": "2"}}, ["leaves no rows", "'1'"]),
    ],
)
def test_what_cannot_be_read_is_told(hub, contents, changes, words):
    with pytest.raises(DataError) as caught:
        sources.load(hub(contents, **changes))
    for word in words:
        assert word in str(caught.value)


def test_a_name_that_is_not_there_without_a_network(section):
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        sources.load(section("data/hub", name="nobody/nothing"))
    assert "data=files" in caught.value.remedy


def test_conversations(hub, tmp_path):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    data = hub({})
    datasets.Dataset.from_dict({"messages": [turns], "id": [1]}).to_parquet(tmp_path / "set" / "train.parquet")
    assert sources.load(data, form="messages")["train"]["messages"].to_pylist() == [turns]
