"""Words and tokens, tags and entities, from a row to what is predicted for it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data import tokenizer as tokenizers
from llmtune.errors import DataError
from llmtune.tasks import lists
from llmtune.tasks.base import Draw
from llmtune.tasks.tagging import TaggingTask, first_tokens, word_spans
from llmtune.tasks.tags import Scheme, as_bio, names_of
from llmtune.tasks.text import TextInputs

NAMES = ["O", "B-loc", "I-loc", "B-per", "I-per"]
TEXT = "Zoë lives in New York 😀 now"
TAGS = ["B-per", "O", "O", "B-loc", "I-loc", "O", "O"]


def spans_of(text: str) -> list[int]:
    found, at = [], 0
    for word in text.split(" "):
        found += [at, at + len(word)]
        at += len(word) + 1
    return found


@pytest.fixture(params=[("wordpiece", "bert"), ("word", "lstm"), ("bpe", "gpt"), ("char", "lstm")], ids=lambda p: p[0])
def make(request, tmp_path):
    """A task with a tokenizer of a kind, by its max_length."""
    kind, family = request.param
    texts = [TEXT, "York is new", "lives now"] * 2
    made = tokenizers.train(kind, family=family, vocab_size=300, min_frequency=1, lowercase=False, texts=texts)
    made.save_pretrained(tmp_path)
    limits = {"pad_token_id": made.pad_token_id, "token_types": False, "has_pairs": False}
    return lambda max_length=100: TaggingTask(TextInputs(tmp_path, max_length=max_length, **limits), label_names=NAMES)


def columns(texts=(TEXT,), tags=(TAGS,)):
    return {
        "text": pa.array(texts),
        "spans": pa.array([spans_of(text) for text in texts], pa.list_(pa.int32())),
        "tags": pa.array(tags, pa.list_(pa.string())),
        "file": pa.array(["a.conll"] * len(texts)),
        "row": pa.array(range(1, len(texts) + 1)),
    }


def examples_of(stored):
    rows = pa.RecordBatch.from_pydict(stored).to_pylist()
    return [{**row, "id": i} for i, row in enumerate(rows)]


def test_the_first_token_of_a_word_carries_its_tag(make):
    task = make()
    stored = task.encode(columns())
    [row] = examples_of(stored)
    tokens = task.text.tokenizer.convert_ids_to_tokens(row["input_ids"])
    starts = [tokens[at].lstrip("Ġ")[:1] for at in row["positions"] if at >= 0]
    assert starts[1:5] == ["l", "i", "N", "Y"]
    labels = task.collate([row], Draw(0, 0)).targets["labels"][0]
    read = [(NAMES[labels[at]], tag) for at, tag in zip(row["positions"], TAGS, strict=True) if at >= 0]
    assert len(read) >= 6 and all(label == tag for label, tag in read)
    assert int((labels >= 0).sum()) == sum(at >= 0 for at in row["positions"])


def test_words_beyond_max_length_count_as_tagged_o(make):
    task = make(6)
    [row] = examples_of(task.encode(columns()))
    assert len(row["input_ids"]) <= 6 and row["positions"][-1] == -1
    batch = task.collate([row], Draw(0, 0))
    assert batch.num_targets == sum(at >= 0 for at in row["positions"]) < len(TAGS)
    assert NAMES[task.tags_of(np.full(6, 1), row["positions"])[-1]] == "O"
    sums = task._sums(np.ones((1, 6), dtype=np.int32), batch.targets["positions"].numpy(), batch.targets["tags"].numpy())
    assert sums["words"][1] == len(TAGS) and sums["counts"][:, 2].tolist() == [1, 1]


def test_plain_lines_are_cut_into_words(make):
    task = make()
    stored = task.encode({"text": pa.array(["Zoë's cat, lives."])})
    [row] = examples_of(stored)
    words = [row["text"][a:b] for a, b in zip(row["spans"][::2], row["spans"][1::2], strict=True)]
    assert words == ["Zoë's", "cat", ",", "lives", "."]
    assert word_spans("") == [] and word_spans(" \t") == []


def test_a_row_without_words_is_left_out_unless_all_are_asked_for(make):
    task, given = make(), {"text": pa.array(["", "lives"])}
    assert len(task.encode(given)["text"]) == 1
    rows = examples_of(task.encode(given, keeps_all=True))
    assert len(task.collate(rows, Draw(0, 0)).example_ids) == 2


def test_an_unknown_tag_is_told(make):
    with pytest.raises(DataError, match="'B-org' does not occur") as caught:
        make().encode(columns(["a b", "c"], [["O", "O"], ["B-org"]]))
    assert caught.value.where == "a.conll:2" and "task.label_names" in caught.value.remedy


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2)), max_size=8), st.integers(0, 3))
@settings(deadline=None)
def test_tokens_with_the_space_before_them_belong_to_their_word(words, split):
    """Each word of n characters is n tokens; the first of them may begin with the spaces before the word."""
    spans, offsets, at, firsts = [], [(0, 0)], 0, []
    for length, gap in words:
        spans.append((at + gap + 1, at + gap + 1 + length))
        firsts.append(len(offsets))
        offsets += [(at if split == 0 else at + gap + 1, at + gap + 2)]
        offsets += [(at + gap + 1 + i, at + gap + 2 + i) for i in range(1, length)]
        at += gap + 1 + length
    found = first_tokens(np.array(spans, dtype=np.int64).reshape(-1, 2), np.array([*offsets, (0, 0)]))
    assert found.tolist() == firsts


@pytest.mark.parametrize(
    ("given", "expected", "num_repaired"),
    [
        (["O", "B-x", "I-x", "O"], ["O", "B-x", "I-x", "O"], 0),
        (["I-x", "I-x", "I-y"], ["B-x", "I-x", "B-y"], 2),  # IOB1
        (["B-x", "I-y"], ["B-x", "B-y"], 1),
        (["B-x", "I-x", "E-x", "S-x", "E-y"], ["B-x", "I-x", "I-x", "B-x", "B-y"], 1),  # BIOES
        (["U-x", "B-x", "L-x", "L-x"], ["B-x", "B-x", "I-x", "B-x"], 1),  # BILOU
        (["B_a-b", "I_a-b"], ["B-a-b", "I-a-b"], 0),
        (["NN", "VB"], ["NN", "VB"], 0),
        ([], [], 0),
    ],
)
def test_schemes_become_bio(given, expected, num_repaired):
    rows, count = as_bio(pa.array([given], pa.list_(pa.string())))
    assert rows.to_pylist() == [expected] and count == num_repaired


def test_entities_of_a_scheme():
    scheme = Scheme(NAMES)
    assert scheme.types == ["loc", "per"] and scheme.outside == 0
    ids = np.array([NAMES.index(tag) for tag in TAGS])
    assert scheme.entities(ids).tolist() == [[0, 1, 1], [3, 5, 0]]
    assert scheme.entities(np.array([], dtype=np.int64)).shape == (0, 3)
    assert scheme.entities(np.array([2, 2, -1, 2, 1, 4])).tolist() == [[0, 2, 0], [3, 4, 0], [4, 5, 0], [5, 6, 1]]


def tagged_table(rows):
    return pa.table({"tags": pa.array(rows, pa.list_(pa.string())), "file": ["a"] * len(rows), "row": range(len(rows))})


def test_names_of_tags():
    assert lists.tag_names_of(tagged_table([["O", "I-b"], ["B-a"]])) == ["O", "B-a", "I-a", "B-b", "I-b"]
    assert lists.tag_names_of(tagged_table([["V", "N"], ["O"]])) == ["O", "N", "V"]
    assert names_of(["N", "V"]) == ["N", "V"] and Scheme(["N", "V"]).outside == -1


@pytest.mark.parametrize(
    ("rows", "where", "words"),
    [
        ([["O"], ["B-a", "loc"]], "a:1", ["'loc' has no B-", "data.label_map={loc: B-loc}"]),
        ([["O", "O"], ["O"]], None, ["all words", "'O'"]),
        ([["O"], ["O", ""]], "a:1", ["empty"]),
    ],
)
def test_tags_that_cannot_be_learned(rows, where, words):
    with pytest.raises(DataError) as caught:
        lists.tag_names_of(tagged_table(rows))
    assert caught.value.where == where
    for word in words:
        assert word in f"{caught.value.message} {caught.value.remedy}"
