"""Models that write text: predict, chat, and evaluation by answers, end to end on tiny models."""

import io
import json
from pathlib import Path

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, write_rows

LM, CHAT, TUNED = "runs/lm/latest", "runs/talk/latest", "runs/tuned/latest"
COLOURS = {"sky": "blue", "grass": "green", "blood": "red", "snow": "white"}
ANSWERS = {f"It is {colour}." for colour in COLOURS.values()}  # a tiny model learns that much, but not which is which


@pytest.fixture(scope="module")
def trained(shared: Folder) -> Folder:
    """A folder with a language model, one that answers, and one that was tuned on top of it."""
    (shared / "texts.txt").write_text("".join(row["text"] + "\n" for row in sentences(120)))
    asked = [{"instruction": f"What colour is {thing}?", "output": f"It is {colour}."} for thing, colour in COLOURS.items()]
    (shared / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked * 20))
    common = [
        *SMALL["gpt"],
        "tokenizer.vocab_size=320",
        "tokenizer.lowercase=false",
        "optimizer.lr=.01",
        "training.batch_size=8",
    ]
    sizes = ["tokenizer.max_length=32", "training.epochs=1", "data.label_column=null", "run_name=lm"]
    shared.ok("train", "task=causal_lm", "data.train_file=texts.txt", *common, *sizes)
    sizes = ["tokenizer.max_length=64", "training.epochs=30", "task.packing=false", "run_name=talk"]
    shared.ok("train", "task=instruction", "data.train_file=asked.jsonl", *common, *sizes)
    steps = ["training.max_steps=2", "training.epochs=null", "run_name=tuned"]
    shared.ok("finetune", CHAT, "task=instruction", "data.train_file=asked.jsonl", *steps)
    return shared


def rows_of(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_predict_continues_texts_as_the_same_command_does_row_by_row(trained: Folder):
    lines = "\n".join(["the film", "a", "字 🙂", "it was a story about rain and two friends who walk home"])
    how = ["temperature=1.5", "top_p=.9", "max_new_tokens=20"]
    together = rows_of(trained.ok("predict", LM, *how, stdin=lines).out)
    assert [row["text"] for row in together] == lines.split("\n")
    assert {row["finish_reason"] for row in together} <= {"length", "stop"} and set(together[0]) == {
        "text",
        "continuation",
        "finish_reason",
    }
    assert rows_of(trained.ok("predict", LM, *how, "batch_size=1", stdin=lines).out) == together
    assert rows_of(trained.ok("predict", LM, *how, "seed=1", stdin=lines).out) != together
    told = trained.ok("predict", LM, "max_new_tokens=60", stdin=lines)
    assert "4 texts beyond the window of 32 tokens: the beginning was left out" in told.err


def test_stop_texts_are_cut_off(trained: Folder):
    (plain,) = rows_of(trained.ok("predict", LM, stdin="the film").out)
    letter = plain["continuation"].strip()[2]
    (cut,) = rows_of(trained.ok("predict", LM, f"stop=['{letter}']", stdin="the film").out)
    assert cut["continuation"] == plain["continuation"].partition(letter)[0] and cut["finish_reason"] == "stop"


def test_predict_answers_lines_and_conversations(trained: Folder):
    lines = "\n".join(f"What colour is {thing}?" for thing in COLOURS)
    rows = rows_of(trained.ok("predict", CHAT, stdin=lines).out)
    assert all(row["answer"] in ANSWERS and row["finish_reason"] == "stop" for row in rows)
    asked = [[{"role": "user", "content": line}] for line in lines.split("\n")]
    asked[1].append({"role": "assistant", "content": "left out, since it is what is asked for"})
    files = {
        "messages.jsonl": [{"messages": messages} for messages in asked],
        "sharegpt.jsonl": [{"conversations": [{"from": "human", "value": m[0]["content"]}]} for m in asked],
        "alpaca.jsonl": [{"instruction": m[0]["content"], "input": ""} for m in asked],
        "pairs.jsonl": [{"prompt": m[0]["content"]} for m in asked],
    }
    for name, content in files.items():
        (trained / name).write_text("".join(json.dumps(row) + "\n" for row in content))
        found = rows_of(trained.ok("predict", CHAT, name).out)
        assert [row["answer"] for row in found] == [row["answer"] for row in rows], name
        assert [row["messages"] for row in found] == [messages[:1] for messages in asked], name
    (trained / "bad.jsonl").write_text(json.dumps({"messages": [{"role": "assistant", "content": "hm"}]}) + "\n")
    refused = trained("predict", CHAT, "bad.jsonl")
    assert refused.code == 3 and "bad.jsonl:1" in refused.err
    long = trained.ok("predict", CHAT, stdin="why? " * 80)
    assert rows_of(long.out)[0] | {"text": ""} == {"text": "", "answer": "", "finish_reason": "window"}
    assert "1 text beyond the window of 64 tokens" in long.err


def test_an_export_answers_as_the_run_does(trained: Folder):
    trained.ok("export", CHAT, "export=huggingface", "output=given")
    line = "What colour is snow?\n"
    expected = trained.ok("chat", CHAT, "temperature=0", stdin=line).out
    assert expected.strip() in ANSWERS
    assert trained.ok("chat", "given/huggingface", "temperature=0", stdin=line).out == expected
    for name in ("llmtune.json", "MANIFEST.json"):  # as a directory of others
        (trained / "given" / "huggingface" / name).unlink()
    assert trained.ok("chat", "given/huggingface", "temperature=0", stdin=line).out == expected
    assert rows_of(trained.ok("predict", "given/huggingface", stdin=line).out)[0]["answer"] == expected.strip()
    (trained / "plain.jsonl").write_text(json.dumps({"instruction": line.strip()}) + "\n")
    assert rows_of(trained.ok("predict", "given/huggingface", "plain.jsonl").out)[0]["answer"] == expected.strip()


def test_chat_keeps_and_drops_turns_and_obeys(trained: Folder):
    line = "What colour is grass?\n"
    told = trained.ok(
        "chat", CHAT, "temperature=0", "max_new_tokens=12", stdin=line * 5 + "/save said.jsonl\n/nonsense\n/quit\nnever said\n"
    )
    assert told.out.splitlines()[0] in ANSWERS
    assert "the oldest 2 turns no longer fit the window" in told.err and "no command /nonsense" in told.err
    (saved,) = read_lines(trained / "said.jsonl")
    assert [m["role"] for m in saved["messages"]] == ["user", "assistant"] * 5
    again = trained.ok("chat", CHAT, "temperature=0", stdin=f"{line}/reset\n{line}/save said.jsonl\n")
    assert again.out == told.out.partition("\n")[0].join(("", "\n")) * 2
    assert read_lines(trained / "said.jsonl")[1]["messages"] == saved["messages"][:2]
    system = trained.ok("chat", CHAT, stdin=f"/system Be kind.\n{line}/save kind.jsonl\n/save no/such/folder\n/help\n")
    assert read_lines(trained / "kind.jsonl")[0]["messages"][0] == {"role": "system", "content": "Be kind."}
    assert "not saved" in system.err and "/reset" in system.err
    long = trained("chat", CHAT, stdin="why? " * 80)
    assert long.code == 3 and "the message does not fit" in long.err


def test_chat_with_a_model_that_was_not_trained_to_answer(trained: Folder):
    told = trained.ok("chat", LM, "temperature=0", "max_new_tokens=5", stdin="the film\nand\n/save text.jsonl\n")
    assert "has no chat template" in told.err and "continues what you write" in told.err
    first = rows_of(trained.ok("predict", LM, "max_new_tokens=5", stdin="the film\n").out)[0]["continuation"]
    assert told.out.startswith(first)
    assert read_lines(trained / "text.jsonl")[0]["text"].startswith(f"the film{first}\nand")
    assert trained("chat", LM, "system=hm", stdin="").code == 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_text_is_streamed_to_a_terminal(trained: Folder, monkeypatch: pytest.MonkeyPatch):
    (expected,) = rows_of(trained.ok("predict", LM, stdin="the film\n").out)
    monkeypatch.setattr("io.StringIO", Terminal)
    told = trained.ok("predict", LM, stdin="the film\n\nthe film\n")
    assert told.out == f"the film\n{expected['continuation']}\n" * 2
    assert "\x1b" not in told.out


def test_evaluation_by_answers(trained: Folder):
    told = trained.ok("evaluate", TUNED, "split=validation", "evaluation.generate_rows=3", "evaluation.max_new_tokens=12")
    directory = trained.latest("tuned") / "evaluation" / "validation"
    metrics, rows = read(directory / "metrics.json"), read_lines(directory / "answers.jsonl")
    assert len(rows) == 3 == metrics["answers"]["rows"]
    for name in ("exact_match", "rouge1", "rouge2", "rougeL"):
        assert metrics[name] == pytest.approx(sum(row[name] for row in rows) / 3)
        assert name in metrics["answers"]["before"]
    for row in rows:
        assert row["reference"].startswith("It is") and row["exact_match"] == float(row["answer"] == row["reference"])
        assert row["before"] and "What colour" in row["prompt"]
    assert "rougeL, before training" in told.out and "reference" in told.out
    page = (directory / "report.html").read_text()
    assert "ROUGE-L" in page and "before training" in page and "What colour" in page


def test_evaluation_by_answers_of_plain_text(trained: Folder):
    trained.ok("evaluate", LM, "evaluation.generate_rows=1000", "evaluation.max_new_tokens=4")
    rows = read_lines(trained.latest("lm") / "evaluation" / "test" / "answers.jsonl")
    assert rows and all(row["before"] is None for row in rows)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["predict", LM, "top_p=.5", "seed=3"], ["top_p", "seed", "temperature=0"]),
        (["chat", LM, "temperature=0", "top_k=3"], ["top_k", "temperature=0"]),
        (["predict", LM, "temperature=-1"], ["temperature"]),
        (["predict", LM, "top_p=0"], ["top_p"]),
        (["predict", LM, "stop=['']"], ["stop"]),
        (["chat", LM, "file=x"], ["file"]),
    ],
)
def test_mistakes(trained: Folder, args: list[str], words: list[str]):
    refused = trained(*args, stdin="")
    assert refused.code == 2 and all(word in refused.err for word in words), refused.err


def test_keys_of_writing_are_refused_where_nothing_is_written(trained: Folder, tmp_path: Path):
    write_rows(trained / "reviews.csv", sentences(40))
    trained.ok("train", *SMALL["lstm"], "data.train_file=reviews.csv", "training.epochs=1", "run_name=cls")
    refused = trained("predict", "runs/cls/latest", "temperature=.7", "max_new_tokens=3", stdin="good\n")
    assert refused.code == 2 and "temperature: is for models that write text" in refused.err and "max_new_tokens" in refused.err
    assert trained("chat", "runs/cls/latest", stdin="good\n").code == 4
    refused = trained("evaluate", "runs/cls/latest", "evaluation.generate_rows=3")
    assert refused.code == 2 and "evaluation.generate_rows" in refused.err
