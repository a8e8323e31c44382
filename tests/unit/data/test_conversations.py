"""Conversations of every form: from files to the same lists of messages, and rows that hold none."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmtune.data import sources
from llmtune.data.accounting import Ledger
from llmtune.data.clean import stages
from llmtune.data.spool import Spool
from llmtune.errors import DataError

ASKED, ANSWER = "你好, what is\n1 + 1?", "2 😀"
PAIR = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}]
SYSTEM = {"role": "system", "content": "Be brief."}
MORE = [{"role": "user", "content": "And 2 + 2?"}, {"role": "assistant", "content": "4"}]


def jsonl(*rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def parquet(rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def messages(data, **options) -> list[list[dict[str, str]]]:
    return sources.load(data, form="messages", **options)["train"]["messages"].to_pylist()


def shared(turns) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]


FORMS = {
    "messages": {"messages": [SYSTEM, *PAIR, *MORE]},
    "parts": {"messages": [SYSTEM, {**PAIR[0], "content": [{"type": "text", "text": ASKED}]}, PAIR[1], *MORE]},
    "sharegpt": {"id": 7, "conversations": shared([SYSTEM, *PAIR, *MORE])},
    "sharegpt, system beside": {"conversations": shared([*PAIR, *MORE]), "system": "Be brief."},
    "sharegpt with roles": {"conversations": [SYSTEM, *PAIR, *MORE]},
    "alpaca": {
        "instruction": "And 2 + 2?",
        "input": "",
        "output": "4",
        "system": "Be brief.",
        "history": [[ASKED, ANSWER]],
    },
    "completion of turns": {"prompt": [SYSTEM, *PAIR, MORE[0]], "completion": [MORE[1]]},
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_messages(files, name):
    assert messages(files({"a.jsonl": jsonl(FORMS[name], FORMS[name])})) == [[SYSTEM, *PAIR, *MORE]] * 2
    assert messages(files({"a.json": json.dumps([FORMS[name]])})) == [[SYSTEM, *PAIR, *MORE]]
    if name not in ("parts", "completion of turns"):
        assert messages(files({"a.parquet": parquet([FORMS[name]])})) == [[SYSTEM, *PAIR, *MORE]]


def test_single_turns(files):
    alpaca = {"instruction": "Add.", "input": "1, 2", "output": 3}
    added = [{"role": "user", "content": "Add.\n1, 2"}, {"role": "assistant", "content": "3"}]
    rows = [alpaca, {"instruction": ASKED, "output": ANSWER}, {"instruction": ASKED, "input": None, "output": ANSWER}]
    assert messages(files({"a.jsonl": jsonl(*rows)})) == [added, PAIR, PAIR]
    assert messages(files({"a.jsonl": jsonl({"prompt": ASKED, "completion": ANSWER})})) == [PAIR]
    text = 'prompt,completion,kind\r\n"a,\nb",c,x\r\n'
    assert messages(files({"a.csv": text}, where={"kind": "x"}))[0][0]["content"] == "a,\nb"


def test_columns_and_roles_can_be_named(files):
    rows = jsonl({"question": ASKED, "reply": ANSWER, "messages": "no list"})
    named = {"conversation": "alpaca", "conversation_columns": {"instruction": "question", "output": "reply"}}
    assert messages(files({"a.jsonl": rows}, **named)) == [PAIR]
    turns = {"talk": [{"from": "visitor", "value": ASKED}, {"from": "bing", "value": ANSWER}]}
    named = {"conversation_columns": {"messages": "talk"}, "roles": {"bing": "assistant", "visitor": "user"}}
    assert messages(files({"a.jsonl": jsonl(turns)}, **named)) == [PAIR]


def test_the_form_is_told_once_for_each(files, capsys):
    contents = {"a.jsonl": jsonl({"instruction": ASKED, "output": ANSWER}), "b.jsonl": jsonl({"messages": PAIR})}
    assert messages(files(contents, train_file=[*contents])) == [PAIR, PAIR]
    told = " ".join(capsys.readouterr().err.split())
    assert "read as alpaca (columns instruction, output); data.conversation=alpaca insists" in told
    assert "read as messages (columns messages)" in told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": []}, "the conversation is empty"),
        ({"messages": None}, "column 'messages' is empty"),
        ({"messages": "hi"}, "holds 'hi', not a list of turns"),
        ({"messages": ["hi"]}, "turn 1 in column 'messages' is 'hi', no object"),
        ({"messages": [SYSTEM]}, "the conversation is empty"),
        ({"messages": [PAIR[0]]}, "no turn of the conversation is the assistant's"),
        ({"messages": [*PAIR, PAIR[0]]}, "the last turn is the user's"),
        ({"messages": [PAIR[1]]}, "turn 1 (without a system message) is the assistant's, where the user's is due"),
        ({"messages": [*PAIR, PAIR[1]]}, "turn 3 (without a system message) is the assistant's, where the user's is due"),
        ({"messages": [PAIR[0], *PAIR]}, "turn 2 (without a system message) is the user's"),
        ({"messages": [*PAIR, SYSTEM]}, "turn 3 (without a system message) is the system's"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "unknown role 'boss'; known are 'system'"),
        ({"messages": [{"role": None, "content": "x"}]}, "unknown role null"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "calls a tool, which is not supported"),
        (
            {"messages": [PAIR[0], {"role": "assistant", "content": None, "tool_calls": [1]}]},
            "turn 2 in column 'messages' calls",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "'content' of turn 1 in column 'messages' is null, not text"),
        ({"messages": [{"role": "user", "content": 3}]}, "is 3, not text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part of the kind 'image_url'"),
        ({"messages": [PAIR[0], {"role": "assistant", "content": " \n"}]}, "the assistant's, is empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half of a surrogate pair"),
        ({"messages": [{"role": "user", "text": "x"}]}, "has no 'content' (or 'value'); there are 'role', 'text'"),
        ({"messages": [{"speaker": "user", "value": "x"}]}, "has no 'role' (or 'from'); there are 'speaker', 'value'"),
        ({"instruction": "x", "output": None}, "the row has no 'output'"),
        ({"instruction": "x", "output": ""}, "the assistant's, is empty"),
        ({"instruction": "", "input": "y", "output": "x"}, "the row has no instruction"),
        ({"instruction": "x", "output": ["y"]}, "column 'output' holds a list, not text"),
        ({"instruction": "x", "output": "y", "history": "z"}, "column 'history' holds 'z', no list of turns"),
        ({"prompt": "x", "completion": None}, "the row has no 'completion'"),
    ],
)
def test_bad_rows_are_refused_with_their_place_or_dropped_and_counted(files, tmp_path, row, told):
    good = {"messages": {"messages": PAIR}, "instruction": {"instruction": ASKED, "output": ANSWER}}
    good = good.get(next(iter(row)), {"prompt": ASKED, "completion": ANSWER})
    content = {"a.jsonl": jsonl(good, row)}
    with pytest.raises(DataError) as refused:
        messages(files(content))
    assert told in refused.value.message and refused.value.where.endswith("a.jsonl:2") and refused.value.remedy
    ledger = Ledger(tmp_path)
    assert messages(files(content, bad_conversations="drop"), ledger=ledger) == [PAIR]
    [entry] = ledger.account["train"]
    assert (entry["rows_in"], entry["rows_out"], sum(entry["left_out"].values())) == (2, 1, 1)


def test_no_conversation_at_all(files):
    with pytest.raises(DataError, match="'question', 'answer'; they would be in messages: messages; or sharegpt") as refused:
        messages(files({"a.jsonl": jsonl({"question": "x", "answer": "y"})}))
    assert "data.conversation_columns={instruction: question" in refused.value.remedy
    with pytest.raises(DataError, match="alpaca: instruction and output"):
        messages(files({"a.jsonl": jsonl({"messages": PAIR})}, conversation="alpaca"))
    with pytest.raises(DataError, match="no conversation is left: 1 the conversation is empty"):
        messages(files({"a.jsonl": jsonl({"messages": []})}, bad_conversations="drop"))
    with pytest.raises(DataError, match="no conversations in the columns 'text'"):
        messages(files({"a.txt": "hello\n"}))


def test_where_and_dropping_are_counted_apart(files, tmp_path):
    rows = [{"messages": PAIR, "kind": "a"}, {"messages": [], "kind": "a"}, {"messages": [], "kind": "b"}]
    ledger = Ledger(tmp_path)
    data = files({"a.jsonl": jsonl(*rows)}, where={"kind": "a"}, bad_conversations="drop")
    assert messages(data, ledger=ledger) == [PAIR]
    assert ledger.account["train"][0]["left_out"] == {"data.where": 1, "the conversation is empty": 1}


def test_cleaners_change_contents_and_text(files, cleaners, tmp_path):
    row = {"messages": [PAIR[0], {"role": "assistant", "content": "<b>bold</b>"}]}
    tables = sources.load(files({"a.jsonl": jsonl(row)}), form="messages")
    cleaned = stages.before_split(tables, cleaners("html"), ledger=Ledger(tmp_path), spool=Spool())["train"]
    assert cleaned["messages"].to_pylist() == [[PAIR[0], {"role": "assistant", "content": " bold "}]]
    assert cleaned["text"].to_pylist() == [f"{ASKED}\n bold "]
