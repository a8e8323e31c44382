"""Padding, and augmentation keyed by seed, epoch and row alone."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from llmtune.config.sections.augment import DropWords
from llmtune.data import tokenizer as tokenizers
from llmtune.data.augment import registry
from llmtune.data.words import WordEncoder
from llmtune.errors import DataError
from llmtune.tasks.base import Draw
from llmtune.tasks.prepare import task_of
from llmtune.tasks.text import TextInputs, as_numbers

DROP = DropWords(type="drop", rate=0.5, probability=1.0, texts="both", protect=(), chinese="characters")
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa"


def text_inputs(**changes) -> TextInputs:
    return TextInputs(None, **{"max_length": 8, "pad_token_id": 9, "token_types": False, "has_pairs": False, **changes})


def test_padding_is_on_the_right_and_masked():
    inputs, lengths = text_inputs().pad([{"input_ids": np.array([1, 9, 3], np.int32)}, {"input_ids": [4]}])
    assert inputs["input_ids"].tolist() == [[1, 9, 3], [4, 9, 9]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert lengths.tolist() == [3, 1]
    assert {tensor.dtype for tensor in (*inputs.values(), lengths)} == {torch.int64}
    assert "token_type_ids" not in inputs


def test_token_types_are_padded_with_the_first_kind():
    rows = [{"input_ids": [1, 2, 3], "token_type_ids": [0, 1, 1]}, {"input_ids": [4], "token_type_ids": []}]
    assert text_inputs().pad(rows)[0]["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.fixture
def augmented(prepared_rows):
    """A task whose augmenter drops words, and its stored rows with their ids."""
    rows = "".join(f"{WORDS} {i},second {WORDS},{i % 2}\n" for i in range(12))
    split = {"validation_fraction": 0, "test_fraction": 0}
    ready = prepared_rows(
        {"a.csv": "text,more,label\n" + rows}, model="bert", text_pair_column="more", split=split, tokenizer={"max_length": 40}
    )
    task = task_of(ready)
    task.inputs.text.augmenter = registry.build({"drop": DROP})
    stored = ready.splits["train"].rows(range(12))
    return task, [{**row, "id": i} for i, row in enumerate(stored)]


def ids_of(task, examples, draw) -> dict[int, list[int]]:
    batch = task.collate(examples, draw)
    rows = zip(batch.example_ids.tolist(), batch.inputs["input_ids"].tolist(), batch.lengths.tolist(), strict=True)
    return {example: ids[:length] for example, ids, length in rows}


def test_an_augmented_row_is_the_same_in_every_batch(augmented):
    task, examples = augmented
    draw = Draw(seed=1, epoch=2)
    whole = ids_of(task, examples, draw)
    assert whole == ids_of(task, examples[::-1], draw)
    for example in examples:
        assert ids_of(task, [example], draw) == {example["id"]: whole[example["id"]]}


def test_seed_epoch_and_row_change_it(augmented):
    task, examples = augmented
    same_text = [{**examples[0], "id": i} for i in range(6)]
    draws = [Draw(0, 0), Draw(0, 1), Draw(1, 0)]
    found = {tuple(ids) for draw in draws for ids in ids_of(task, same_text, draw).values()}
    assert len(found) == 18


def test_each_repeat_of_a_row_is_changed_in_its_own_way(augmented):
    task, examples = augmented
    found = {tuple(ids_of(task, [{**examples[0], "repeat": n}], Draw(0, 0))[0]) for n in range(6)}
    assert len(found) == 6
    first = ids_of(task, [{**examples[0], "repeat": 0}], Draw(0, 0))
    assert first == ids_of(task, examples[:1], Draw(0, 0))


def test_evaluation_sees_the_texts_as_they_are(augmented):
    task, examples = augmented
    found = ids_of(task, examples, Draw(1, 2, training=False))
    assert found == {example["id"]: example["input_ids"].tolist() for example in examples}


def test_an_augmented_pair_is_tokenized_whole(augmented):
    task, examples = augmented
    text = task.inputs.text
    (changed,) = text.augment(examples[:1], Draw(0, 0))
    assert changed["text"] != examples[0]["text"] and changed["text_pair"] != examples[0]["text_pair"]
    again = text.tokenizer(changed["text"], changed["text_pair"])
    assert changed["input_ids"].tolist() == again["input_ids"]
    assert changed["token_type_ids"].tolist() == again["token_type_ids"]
    assert changed["label"] == examples[0]["label"] and "second" not in examples[0]["text"]


def test_an_augmented_text_is_cut(augmented):
    task, examples = augmented
    task.inputs.text.augmenter = lambda texts, rng: {name: text * 20 for name, text in texts.items()}
    assert task.collate(examples, Draw(0, 0)).inputs["input_ids"].shape == (12, 40)


def test_numbers_of_text():
    given = {"label": ["1", " 2.5 ", "-1e3"], "file": ["f"] * 3, "row": [1, 2, 3]}
    columns = {name: pa.array(values) for name, values in given.items()}
    assert as_numbers(columns, "label") == [1.0, 2.5, -1000.0]
    for bad in (None, "", "one", "nan", "inf", "1e39"):
        with pytest.raises(DataError) as caught:
            as_numbers({**columns, "label": pa.array(["1", bad, "x"])}, "label")
        assert caught.value.where == "f:2"


@pytest.mark.parametrize("has_pairs", [False, True])
@pytest.mark.parametrize("family", ["lstm", "bert"])
@pytest.mark.parametrize("num_rows", [3, 400])
def test_many_rows_at_once_are_what_each_is(tmp_path, monkeypatch, family, has_pairs, num_rows):
    """By words where they are many; an empty text has a token all the same."""
    words = WORDS.split()
    kind = "word" if family == "lstm" else "wordpiece"
    sizes = {"vocab_size": 80, "min_frequency": 1, "lowercase": True}
    tokenizers.train(kind, family=family, texts=[WORDS], **sizes).save_pretrained(tmp_path)
    inputs = TextInputs(tmp_path, max_length=8, pad_token_id=0, token_types=family == "bert", has_pairs=has_pairs)
    calls = []
    monkeypatch.setattr(WordEncoder, "encode", lambda *a, real=WordEncoder.encode: (calls.append(1), real(*a))[1])
    first = [" ".join(words[i % 7 : i % 7 + i % 5]) + " new"[: i % 3] for i in range(num_rows)]
    second = [" ".join(words[i % 3 : i % 11]) for i in range(num_rows)]
    columns = [first, second] if has_pairs else [first]
    expected = inputs.encode(*columns)
    found = inputs.encode_columns(*(pa.array(column, pa.string()) for column in columns))
    assert {name: values.to_pylist() for name, values in found.items()} == expected
    assert bool(calls) == (num_rows > 3) and "" in first
