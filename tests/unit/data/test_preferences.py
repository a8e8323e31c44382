"""Preferences of every form: from files to the same two conversations, and rows that hold none."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from llmtune.data import forms, sources
from llmtune.data.accounting import Ledger
from llmtune.data.clean import stages
from llmtune.data.forms import MESSAGES
from llmtune.data.spool import Spool
from llmtune.errors import DataError
from tests.unit.data.test_conversations import jsonl, parquet, shared

ASKED, GOOD, BAD = "你好, what is\n1 + 1?", "2 😀", "three"
USER, SYSTEM = {"role": "user", "content": ASKED}, {"role": "system", "content": "Be brief."}
CHOSEN, REJECTED = ({"role": "assistant", "content": text} for text in (GOOD, BAD))
PAST = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
WANTED = ([SYSTEM, *PAST, USER, CHOSEN], [SYSTEM, *PAST, USER, REJECTED])

FORMS = {
    "turns": {"prompt": [SYSTEM, *PAST, USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "prompt of turns, answers of text": {"prompt": [SYSTEM, *PAST, USER], "chosen": GOOD, "rejected": BAD},
    "prompt inside": {"prompt": [SYSTEM, *PAST, USER], "chosen": WANTED[0], "rejected": WANTED[1]},
    "prompt inside, without its system message": {
        "prompt": [*PAST, USER],
        "system": "Be brief.",
        "chosen": WANTED[0][1:],
        "rejected": WANTED[1][1:],
    },
    "implicit": {"chosen": WANTED[0], "rejected": WANTED[1]},
    "implicit, system beside": {"chosen": WANTED[0][1:], "rejected": WANTED[1][1:], "system": "Be brief."},
    "sharegpt": {
        "conversations": shared([SYSTEM, *PAST, USER]),
        "chosen": shared([CHOSEN])[0],
        "rejected": shared([REJECTED])[0],
    },
    "alpaca": {
        "instruction": "你好, what is\n1 + 1?",
        "input": "",
        "output": "unused",
        "system": "Be brief.",
        "history": [["hi", "hello"]],
        "chosen": GOOD,
        "rejected": BAD,
    },
}


def pairs(data, **options) -> list[tuple[list[dict[str, str]], list[dict[str, str]]]]:
    table = sources.load(data, form="preference", **options)["train"]
    return list(zip(*(table[name].to_pylist() for name in forms.CONVERSATIONS), strict=True))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_pair(files, name):
    assert pairs(files({"a.jsonl": jsonl(FORMS[name], FORMS[name])})) == [WANTED] * 2


@pytest.mark.parametrize("name", ["turns", "implicit", "sharegpt"])
def test_parquet_is_the_same(files, name):
    assert pairs(files({"a.parquet": parquet([FORMS[name]] * 2)})) == [WANTED] * 2


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json"])
def test_texts_of_tables(files, name):
    lines = {"a.csv": "question,good,bad\nhi,a,b\n", "a.tsv": "question\tgood\tbad\nhi\ta\tb\n"}
    content = lines.get(name) or json.dumps([{"question": "hi", "good": "a", "bad": "b"}])
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    ((chosen, rejected),) = pairs(files({name: content}, conversation_columns=columns))
    assert [turn["content"] for turn in (*chosen, *rejected)] == ["hi", "a", "hi", "b"]


def test_the_text_of_a_row_holds_all_three(files):
    table = sources.load(files({"a.jsonl": jsonl({"prompt": "p", "chosen": "c", "rejected": "r"})}), form="preference")["train"]
    assert table["text"].to_pylist() == ["p\nc\nr"]
    none = {name: pa.array([], MESSAGES) for name in forms.CONVERSATIONS}
    assert forms.text_of(none).to_pylist() == []


def test_pairs_without_a_difference_are_left_out_and_counted(files, tmp_path):
    same = {"prompt": "p", "chosen": "c", "rejected": "c"}
    ledger = Ledger(tmp_path)
    kept = pairs(files({"a.jsonl": jsonl(same, {**same, "rejected": "r"}, same)}), ledger=ledger)
    assert len(kept) == 1
    assert ledger.account["train"][0]["left_out"] == {"chosen equals rejected": 2}
    with pytest.raises(DataError, match="no conversation is left: 2 chosen equals rejected"):
        pairs(files({"b.jsonl": jsonl(same, same)}))


PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}
TURNS = {"chosen": WANTED[0], "rejected": WANTED[1]}
UNFIT = {
    "empty": ({**PAIR, "chosen": " "}, "with the answer of column 'chosen', turn 2 .* the assistant's, is empty"),
    "null": ({**PAIR, "rejected": None}, "the row has no 'rejected'"),
    "no prompt": ({**PAIR, "prompt": ""}, "the user's, is empty"),
    "a number of lists": ({**PAIR, "chosen": [1, 2]}, "turn 1 in column 'chosen' is 1, no object"),
    "no answer": ({**TURNS, "chosen": [SYSTEM, *PAST, USER]}, "column 'chosen', the last turn is the user's"),
    "empty list": ({**TURNS, "rejected": []}, "there is no prompt|column 'rejected' holds an answer"),
    "an earlier turn differs": (
        {**TURNS, "chosen": [SYSTEM, {**USER, "content": "x"}, CHOSEN]},
        "columns 'chosen' and 'rejected' are conversations that differ before their last turn",
    ),
    "another prompt": (
        {"prompt": "other", "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        "the conversation in column 'chosen' does not begin with the row's prompt",
    ),
    "another system message": (
        {"prompt": [{**SYSTEM, "content": "x"}, USER], "chosen": [SYSTEM, USER, CHOSEN], "rejected": [SYSTEM, USER, REJECTED]},
        "does not begin with the row's prompt",
    ),
    "answers alone": ({"chosen": "c", "rejected": "r"}, "column 'chosen' holds an answer, and nothing tells to what"),
    "a tool": ({**PAIR, "chosen": [{"role": "tool", "content": "x"}]}, "calls a tool"),
    "half a pair": ({**PAIR, "chosen": "\ud83d"}, "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_rows_are_told_or_dropped(files, name):
    row, told = UNFIT[name]
    good = {**row, **(PAIR if "prompt" in row else TURNS)}
    with pytest.raises(DataError, match=told) as caught:
        pairs(files({"a.jsonl": jsonl(good, row)}))
    assert caught.value.where.endswith("a.jsonl:2") and caught.value.remedy
    assert len(pairs(files({"a.jsonl": jsonl(good, row)}, bad_conversations="drop"))) == 1


def test_missing_columns_are_told_with_those_that_there_are(files):
    with pytest.raises(DataError, match="no conversations in the columns 'question', 'better'") as caught:
        pairs(files({"a.jsonl": jsonl({"question": "p", "better": "c"})}))
    assert "prompt: question, chosen: better" in caught.value.remedy


def test_a_key_can_insist(files):
    row = {"prompt": "decorated: hi", "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]}
    ((chosen, _),) = pairs(files({"a.jsonl": jsonl(row)}, conversation="implicit"))
    assert chosen == [USER, CHOSEN]


def test_prompts_are_read_of_preference_files(files):
    for row, how in ((PAIR, "auto"), (TURNS, "implicit")):
        data = files({"a.jsonl": jsonl(row)}, conversation=how)
        (read,) = sources.load(data, form="prompts")["train"]["messages"].to_pylist()
        assert read[-1]["role"] == "user" and len(read) == (1 if how == "auto" else 4)


def test_both_answers_are_cleaned(files):
    row = {"prompt": "<b>p</b>", "chosen": "<i>c</i>", "rejected": "<i>r</i>"}
    table = sources.load(files({"a.jsonl": jsonl(row)}), form="preference")["train"]
    without = lambda texts: pc.replace_substring_regex(texts, "</?i>", "")  # noqa: E731
    cleaned = stages.cleaned(table, without, spool=Spool())
    assert cleaned["text"].to_pylist() == ["<b>p</b>\nc\nr"]
    assert [turn["content"] for turn in cleaned["rejected"][0].as_py()] == ["<b>p</b>", "r"]
