"""From files to stored rows: what is learned from the train rows, what is refused, and what is said."""

import os

import numpy as np
import pytest

from llmtune.data import sources
from llmtune.data.preparation import Origin
from llmtune.errors import ConfigError, DataError, ModelError
from llmtune.tasks import prepare as preparing
from llmtune.tasks.classification import ClassificationTask
from llmtune.tasks.encoding import encode_rows
from llmtune.tasks.prepare import load_rows, task_of, tokenizer_dir_of

SPLITS = ("train", "validation", "test")


def csv(rows, header="text,label") -> str:
    return "\n".join([header, *rows]) + "\n"


def film_rows(count=40) -> str:
    return csv([f"film {i} was {'good' if i % 2 else 'bad'},{i % 2}" for i in range(count)])


def given_splits(train, validation="d,a", test="e,b") -> dict:
    return {"train.csv": csv(train), "validation.csv": csv([validation]), "test.csv": csv([test])}


NAMED = {"train_file": "train.csv", "validation_file": "validation.csv", "test_file": "test.csv"}


def stored(ready, split="train"):
    return ready.splits[split].rows(range(len(ready.splits[split])))


def test_what_a_classification_is_prepared_to(prepared_rows):
    ready = prepared_rows({"a.csv": film_rows()}, label_map={"0": "negative", "1": "positive"})
    assert ready.meta["task"]["label_names"] == ["negative", "positive"]
    assert {name: len(ready.splits[name]) for name in ready.splits} == {"train": 32, "validation": 4, "test": 4}
    assert {name: facts["rows"] for name, facts in ready.meta["splits"].items()} == {"train": 32, "validation": 4, "test": 4}
    task = task_of(ready)
    assert isinstance(task, ClassificationTask) and task.describe() == ready.meta["task"]
    rows = [row for split in SPLITS for row in stored(ready, split)]
    assert len({row["text"] for row in rows}) == 40
    for row in rows:
        assert row["label"] == ("good" in row["text"])
        assert row["input_ids"].tolist() == task.inputs.text.tokenizer(row["text"])["input_ids"]
    facts = ready.meta["splits"]["train"]
    assert facts["tokens"] == ready.splits["train"].lengths.sum()
    assert ready.meta["tokenizer"]["vocab_size"] == len(task.inputs.text.tokenizer)


def test_the_tokenizer_sees_the_train_rows_only(prepared_rows):
    ready = prepared_rows(given_splits(["a,a", "b,b"], "secret,a", "hidden,b"), **NAMED)
    vocab = task_of(ready).inputs.text.tokenizer.get_vocab()
    assert {"a", "b"} <= set(vocab) and not {"secret", "hidden"} & set(vocab)


def test_the_second_call_reads_and_builds_nothing(prepared_rows, monkeypatch):
    contents = {"a.csv": film_rows()}
    first = prepared_rows(contents)

    def refuse(*args, **options):
        raise AssertionError("read again")

    monkeypatch.setattr(sources, "load", refuse)
    assert prepared_rows(contents).directory == first.directory


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"model": "bert"},
        {"tokenizer": {"max_length": 5}},
        {"tokenizer": "char"},
        {"tokenizer": {"lowercase": False}},
        {"split": {"test_fraction": 0.3}},
        {"split": "random"},
        {"task": "regression"},
        {"label_map": {"0": "x"}},
        {"max_rows": 30},
        {"text_pair_column": "label"},
        {"contents": {"a.csv": film_rows(41)}},
        {"contents": {"a.csv": film_rows().replace("film 7", "film 8")}},
    ],
    ids=str,
)
def test_whatever_decides_about_the_rows_is_in_the_key(prepared_rows, change):
    contents = {"a.csv": film_rows()}
    first = prepared_rows(contents)
    options = {"contents": contents, **change}
    assert prepared_rows(options.pop("contents"), **options).directory != first.directory
    assert prepared_rows(contents).directory == first.directory


def test_a_file_that_changes_while_it_is_prepared_leaves_no_entry(prepared_rows, tmp_path, monkeypatch):
    load = sources.load

    def load_and_change(*args, **options):
        tables = load(*args, **options)
        (tmp_path / "a.csv").write_text(film_rows(50))
        return tables

    monkeypatch.setattr(sources, "load", load_and_change)
    with pytest.raises(DataError, match="changed while they were prepared"):
        prepared_rows({"a.csv": film_rows()})
    assert os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "c"], ["a", "b", "c"]),
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["1.0", "1", "0", "0.0"], ["0", "1"]),
        (["very good", " very good ", "bad"], ["bad", "very good"]),
        (["yes", "no", "Yes"], ["Yes", "no", "yes"]),
        (["1", "x"], ["1", "x"]),
        (["v1.0", "v2.0"], ["v1.0", "v2.0"]),
        (["007", "7.0"], ["007", "7"]),
        (["好", "坏"], ["坏", "好"]),
    ],
)
def test_label_names(prepared_rows, labels, names):
    ready = prepared_rows({"a.csv": csv([f"t{i},{label}" for i, label in enumerate(labels * 5)])})
    assert ready.meta["task"]["label_names"] == names


def test_labels_of_two_files_mean_the_same_number(prepared_rows):
    contents = {"train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "test.csv": csv(["c,1.0"])}
    split = {"validation_fraction": 0}
    ready = prepared_rows(contents, train_file="train.jsonl", test_file="test.csv", split=split)
    assert stored(ready, "test")[0]["label"] == 1


@pytest.mark.parametrize("label_map", [{"0": "bad", "1": "good"}, {"0.0": "bad", "1.0": "good"}])
@pytest.mark.parametrize("labels", ["01", ["0.0", "1.0"], [" 0", "1 "]])
def test_the_label_map_goes_by_the_plain_form(files, labels, label_map):
    data = files({"a.csv": csv([f"a,{labels[0]}", f"b,{labels[1]}"])}, label_map=label_map)
    assert load_rows(data, need_label=True, seed=0)["train"]["label"].to_pylist() == ["bad", "good"]


def test_a_label_map_that_names_no_label_is_told(files, capsys):
    data = files({"a.csv": csv(["a,Bad", "b,good"])}, label_map={"bad": "0", "good": "1"})
    assert load_rows(data, need_label=True, seed=0)["train"]["label"].to_pylist() == ["Bad", "1"]
    assert capsys.readouterr().err == "data.label_map renames 'bad', which is the label of no row\n"


def test_given_label_names_decide_about_the_ids(prepared_rows):
    ready = prepared_rows({"a.csv": film_rows()}, task={"label_names": ["1", "0", "2"]})
    assert ready.meta["task"]["label_names"] == ["1", "0", "2"]
    assert all(row["label"] == ("bad" in row["text"]) for row in stored(ready))


@pytest.mark.parametrize("names", [["a"], ["a", "b", "a"], ["1", "1.0"]])
def test_given_label_names_that_tell_nothing_apart(prepared_rows, names):
    with pytest.raises(ConfigError, match="task.label_names"):
        prepared_rows({"a.csv": film_rows()}, task={"label_names": names})


def test_a_finetuned_run_keeps_its_labels_if_they_agree(prepared_rows):
    origin = Origin(description={"label_names": ["1", "maybe", "0"]})
    assert prepared_rows({"a.csv": film_rows()}, origin=origin).meta["task"]["label_names"] == ["1", "maybe", "0"]
    origin = Origin(description={"label_names": ["1", "maybe"]})
    assert prepared_rows({"a.csv": film_rows()}, origin=origin).meta["task"]["label_names"] == ["0", "1"]


BAD_LABELS = {
    "test lacks": (given_splits(["a,x", "b,y"], "c,x", "d,z"), "test.csv:2", ["'z'", "train rows", "x, y"]),
    "validation lacks": (given_splits(["a,x", "b,y"], "c,X", "d,x"), "validation.csv:2", ["'X'"]),
    "empty in test": (given_splits(["a,x", "b,y"], "c,x", "d,"), "test.csv:2", ["is empty"]),
    "long": (given_splits(["a,x", "b,y"], "c,x", "d," + "z" * 5000), "test.csv:2", ["does not occur"]),
    "empty": (given_splits(["a,x", "b,", "c,y"]), "train.csv:3", ["is empty", "data.where"]),
    "blank": (given_splits(["a,x", "b,  ", "c,y"]), "train.csv:3", ["is empty"]),
    "nan": (given_splits(["a,x", "b,nan", "c,y"]), "train.csv:3", ["'nan'"]),
    "NaN": (given_splits(["a,1", "b,NaN", "c,0"]), "train.csv:3", ["'NaN'"]),
    "none": (given_splits(["a,x", "b,None", "c,y"]), "train.csv:3", ["'None'", "data.label_map={None: ...}"]),
    "fraction": (given_splits(["a,1", "b,0.5", "c,0"]), "train.csv:3", ["'0.5'", "fraction", "task=regression"]),
    "one class": (given_splits(["a,x", "b,x", "c,x"]), None, ["all 3 train rows", "'x'"]),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_a_bad_label_is_told_with_its_row(prepared_rows, tmp_path, name):
    contents, place, words = BAD_LABELS[name]
    with pytest.raises(DataError) as caught:
        prepared_rows(contents, **NAMED)
    assert caught.value.exit_code == 3
    assert caught.value.where == (place and str(tmp_path / place))
    assert len(caught.value.message) < 500
    for word in words:
        assert word in str(caught.value)
    assert os.listdir(tmp_path / "cache") == []


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_a_missing_label_in_json(prepared_rows, tmp_path, value):
    lines = ['{"text": "a", "label": 1}', f'{{"text": "b", "label": {value}}}', '{"text": "c", "label": 0}'] * 5
    with pytest.raises(DataError, match="the label is") as caught:
        prepared_rows({"a.jsonl": "\n".join(lines)})
    assert caught.value.where == f"{tmp_path / 'a.jsonl'}:2"


@pytest.mark.parametrize("value", ["", "x", "nan", "inf", "1e39", "-1e400", "1,5"])
def test_a_target_that_is_no_number(prepared_rows, tmp_path, value):
    with pytest.raises(DataError, match="the label is") as caught:
        prepared_rows(
            {"a.csv": csv(["a,1", f'b,"{value}"', "c,2"])},
            task="regression",
            split={"validation_fraction": 0, "test_fraction": 0},
        )
    assert caught.value.where == f"{tmp_path / 'a.csv'}:3"


def test_regression_facts(prepared_rows):
    values = [0.5, -2.0, 1e3, 4.0]
    split = {"validation_fraction": 0, "test_fraction": 0}
    ready = prepared_rows({"a.csv": csv([f"t{i},{v}" for i, v in enumerate(values)])}, task="regression", split=split)
    assert [row["target"] for row in stored(ready)] == values
    assert ready.meta["task"]["target_mean"] == pytest.approx(np.mean(values))
    assert ready.meta["task"]["target_std"] == pytest.approx(np.std(values))


def test_numeric_rows_have_no_tokenizer(prepared_rows):
    rows = [f"{i},{2 * i},{'odd' if i % 2 else 'even'}" for i in range(30)]
    ready = prepared_rows(
        {"a.csv": csv(rows, "x,y,label")}, model="mlp", text_column=None, feature_columns=["y", "x"], split="contiguous"
    )
    assert tokenizer_dir_of(ready) is None and ready.meta["tokenizer"] == {}
    assert ready.meta["task"]["feature_names"] == ["y", "x"]
    assert ready.meta["task"]["feature_mean"] == pytest.approx([23.0, 11.5])
    assert stored(ready)[3]["features"].tolist() == [6.0, 3.0]
    assert task_of(ready).describe() == ready.meta["task"]


@pytest.mark.parametrize("texts", [["", "  ", "\t"], [" "] * 3])
def test_all_texts_blank(prepared_rows, texts):
    rows = csv([f"{text},{i % 2}" for i, text in enumerate(texts * 6)])
    with pytest.raises(DataError, match="texts of the train rows are blank") as caught:
        prepared_rows({"a.csv": rows})
    assert caught.value.where == "column text"


@pytest.mark.parametrize("model", ["lstm", "bert", "gpt"])
def test_a_row_without_text_has_a_position_all_the_same(prepared_rows, model):
    rows = csv([",0", '" ",1', "a b,0", "c,1"])
    split = {"validation_fraction": 0, "test_fraction": 0}
    tokenizer = {"vocab_size": 300}
    ready = prepared_rows({"a.csv": rows}, model=model, tokenizer=tokenizer, split=split)
    assert len(ready.splits["train"]) == 4 and ready.splits["train"].lengths.min() >= 1
    pairs = prepared_rows({"a.csv": rows}, model=model, tokenizer=tokenizer, split=split, text_pair_column="text")
    assert pairs.splits["train"].lengths.min() >= 1


@pytest.mark.parametrize("model", ["lstm", "bert", "gpt"])
def test_rows_are_cut_and_counted(prepared_rows, model):
    long, short = "a b c d e f g h i j", "a b"
    split = {"validation_fraction": 0, "test_fraction": 0}
    tokenizer = {"max_length": 6, "type": "word"}
    ready = prepared_rows(
        {"a.csv": csv([f"{long},0", f"{short},1", f"{long},1"])}, model=model, tokenizer=tokenizer, split=split
    )
    assert ready.splits["train"].lengths.tolist() == [6, 4 if model == "bert" else 2, 6]
    assert ready.meta["splits"]["train"]["truncated"] == 2
    assert ready.meta["account"]["train"][-1] == {"stage": "tokenized", "rows_in": 3, "rows_out": 3, "truncated": 2}
    assert ready.meta["task"]["max_length"] == 6


@pytest.mark.parametrize("times", [1, 60])  # 60: word by word
@pytest.mark.parametrize("pairs", [{}, {"text_pair_column": "text"}])
def test_a_row_that_just_fits_is_not_cut(prepared_rows, times, pairs):
    split, (fits, length) = {"validation_fraction": 0, "test_fraction": 0}, ("a b c", 7) if pairs else ("a b c d e f", 6)
    rows = csv([f"{fits},0", "a b,1", f"{fits} g,1"] * times)
    ready = prepared_rows({"a.csv": rows}, tokenizer={"max_length": length, "type": "word"}, split=split, **pairs)
    assert ready.meta["splits"]["train"]["truncated"] == times


def test_pairs_are_cut_together(prepared_rows):
    rows = csv(["a b c d e f g,a b c d e,0", "a,b,1"] * 4, "text,second,label")
    tokenizer = {"max_length": 8, "type": "word"}
    ready = prepared_rows({"a.csv": rows}, model="bert", text_pair_column="second", tokenizer=tokenizer, split="contiguous")
    assert ready.meta["task"]["token_types"] and ready.meta["task"]["has_pairs"]
    long, short = stored(ready)[:2]
    assert len(long["input_ids"]) == 8 and short["token_type_ids"].tolist() == [0, 0, 0, 1, 1]
    assert long["text"] == "a b c d e f g" and long["text_pair"] == "a b c d e"


def test_max_length_must_leave_room_for_text(prepared_rows):
    contents = {"a.csv": csv(["a b,c,0", "d,e,1"] * 5, "text,second,label")}
    with pytest.raises(ConfigError, match="tokenizer.max_length: 3 leaves no room.*3 special tokens: set 4 or more"):
        prepared_rows(contents, model="bert", tokenizer={"max_length": 3}, text_pair_column="second")
    ready = prepared_rows(contents, model="bert", tokenizer={"max_length": 4}, text_pair_column="second")
    assert ready.splits["train"].lengths.max() == 4


def test_progress_counts_the_rows(prepared_rows, capsys, monkeypatch):
    monkeypatch.setattr(preparing, "CHUNK_ROWS", 7)
    prepared_rows({"a.csv": film_rows()}, task="causal_lm", split="contiguous")
    said = capsys.readouterr().err
    assert "preparing train: 32/32 rows" in said and "preparing test: 4/4 rows" in said


@pytest.mark.parametrize("task", ["causal_lm", "masked_lm"])
def test_rows_without_anything_to_predict(prepared_rows, tmp_path, task):
    contents = {"train.txt": "some text\nmore text\n", "validation.txt": "\n"}
    names = {"train_file": "train.txt", "validation_file": "validation.txt", "split": {"test_fraction": 0}}
    tokenizer = {"type": "word", "vocab_size": 300}
    with pytest.raises(DataError, match="nothing to predict") as caught:
        prepared_rows(contents, task=task, tokenizer=tokenizer, **names)
    assert caught.value.where == f"{tmp_path / 'validation.txt'}:1"


def test_masked_rows_without_text_are_left_out(prepared_rows):
    text = "one two\n\n \nthree four\n\nfive\n"
    ready = prepared_rows(
        {"a.txt": text}, task="masked_lm", tokenizer={"type": "word"}, split={"validation_fraction": 0, "test_fraction": 0}
    )
    assert [row["text"] for row in stored(ready)] == ["one two\n", "three four\n", "five\n"]
    facts = ready.meta["splits"]["train"]
    assert (facts["rows"], facts["source_rows"]) == (3, 6)


def test_chunks_make_no_difference(prepared_rows, tmp_path, monkeypatch):
    rows = {"a.csv": film_rows(60)}
    whole = {task: stored(prepared_rows(rows, task=task, split="random")) for task in ("classification", "causal_lm")}
    (tmp_path / "cache").rename(tmp_path / "old")
    monkeypatch.setattr(preparing, "CHUNK_ROWS", 7)
    for task, expected in whole.items():
        found = stored(prepared_rows(rows, task=task, split="random"))
        assert [row["input_ids"].tolist() for row in found] == [row["input_ids"].tolist() for row in expected]


def test_the_tokenizer_of_the_origin(prepared_rows):
    contents = {"a.csv": film_rows()}
    first = prepared_rows(contents, model="bert", tokenizer={"max_length": 12})
    model = {"type": "run", "path": "x"}
    origin = Origin(tokenizer_dir=tokenizer_dir_of(first), max_length=10)
    again = prepared_rows(contents, model=model, tokenizer={"max_length": 8}, origin=origin)
    assert again.meta["tokenizer"] == first.meta["tokenizer"]
    assert again.splits["train"].lengths.max() <= 8
    with pytest.raises(ModelError, match="tokenizer.max_length is 11, but the model reads at most 10") as caught:
        prepared_rows(contents, model=model, tokenizer={"max_length": 11}, origin=origin)
    assert caught.value.remedy == "set tokenizer.max_length=10"
    assert prepared_rows(contents, model=model, origin=origin).meta["task"]["max_length"] == 10


def test_a_changed_tokenizer_of_the_origin_is_another_entry(prepared_rows, tmp_path):
    contents, model = {"a.csv": film_rows()}, {"type": "run", "path": "x"}
    directories = set()
    for lowercase in (True, False):
        made = prepared_rows(contents, model="bert", tokenizer={"lowercase": lowercase})
        target = tmp_path / "model"
        target.mkdir(exist_ok=True)
        for path in tokenizer_dir_of(made).iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        directories.add(prepared_rows(contents, model=model, origin=Origin(tokenizer_dir=target)).directory)
    assert len(directories) == 2


def test_an_origin_without_a_tokenizer(prepared_rows):
    with pytest.raises(ModelError, match="no tokenizer"):
        prepared_rows({"a.csv": film_rows()}, model={"type": "run", "path": "x"})


def test_masking_needs_a_mask_token(prepared_rows):
    gpt = prepared_rows({"a.csv": film_rows()}, task="causal_lm", split="contiguous")
    with pytest.raises(ModelError, match="no mask token"):
        prepared_rows(
            {"a.csv": film_rows()},
            task="masked_lm",
            model={"type": "run", "path": "x"},
            origin=Origin(tokenizer_dir=tokenizer_dir_of(gpt)),
        )


def test_another_file_is_encoded_for_a_task(prepared_rows, files):
    task = task_of(prepared_rows({"a.csv": film_rows()}))
    table = load_rows(files({"new.csv": csv(["a good film,1.0"])}, train_file="new.csv"), need_label=True, seed=0)["train"]
    (chunk,) = encode_rows(task, table)
    assert chunk["label"].to_pylist() == [1] and chunk["text"].to_pylist() == ["a good film"]
