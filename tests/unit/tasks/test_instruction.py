"""Instruction tuning: what is learned of conversations, what is cut, and that packing changes nothing but the padding."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmtune.data import tokenizer as tokenizers
from llmtune.data.forms import MESSAGES
from llmtune.errors import DataError, ModelError
from llmtune.tasks import chat_templates
from llmtune.tasks.base import Draw
from llmtune.tasks.instruction import InstructionTask
from llmtune.tasks.language_modeling import IGNORED, require_isolation
from llmtune.tasks.packing import best_fit
from llmtune.tasks.prepare import task_of
from llmtune.tasks.text import TextInputs
from tests import tiny

PAIRS = [("add 1 2", "3"), ("name a fruit", "a pear 😀"), ("spell cat", "c a t"), ("say yes", "yes"), ("long", "a b c d e f g")]
CHATS = [[{"role": "user", "content": asked}, {"role": "assistant", "content": answer}] for asked, answer in PAIRS]
CHATS.append([*CHATS[0], *CHATS[3]])
DRAW = Draw(0, 0)


@pytest.fixture(scope="module")
def fast():
    texts = [turn["content"] for chat in CHATS for turn in chat]
    made = tokenizers.train("bpe", family="gpt", vocab_size=320, min_frequency=1, lowercase=False, texts=texts)
    chat_templates.add_tokens(made, "chatml")
    chat_templates.install(made, "chatml")
    return made


@pytest.fixture
def instruction(fast):
    def make(*, max_length=64, answers="all", too_long="cut", packing=False) -> InstructionTask:
        text = TextInputs(None, max_length=max_length, pad_token_id=fast.eos_token_id, token_types=False, has_pairs=False)
        text.__dict__["tokenizer"] = fast
        how = {
            "answers": answers,
            "system_prompt": None,
            "too_long": too_long,
            "packing": packing,
            "end_ids": [fast.eos_token_id],
        }
        return InstructionTask(text, **how)

    return make


def columns(chats) -> dict[str, pa.Array]:
    return {
        "messages": pa.array(chats, MESSAGES),
        "file": pa.array(["a.jsonl"] * len(chats)),
        "row": pa.array(range(len(chats))),
    }


def examples(stored) -> list[dict]:
    rows = pa.RecordBatch.from_pydict(stored).to_pylist()
    return [{"id": i, **{name: np.array(values, np.int32) for name, values in row.items()}} for i, row in enumerate(rows)]


def learned(task, batch) -> list[str]:
    """The targets of each row, as text."""
    tokenizer = task.text.tokenizer
    return [tokenizer.decode(row[row != IGNORED].tolist()) for row in batch.targets["labels"]]


def test_answers_and_their_ends_are_the_targets(instruction):
    task = instruction()
    rows = examples(task.encode(columns(CHATS)))
    batch = task.collate(rows, DRAW)
    expected = [f"{answer}<|im_end|>" for _, answer in PAIRS]
    assert learned(task, batch) == [*expected, f"{expected[0]}{expected[3]}"]
    assert batch.num_targets == sum(int((row != IGNORED).sum()) for row in batch.targets["labels"])
    for row, labels in zip(rows, batch.targets["labels"].numpy(), strict=True):
        at = np.flatnonzero(labels != IGNORED)
        assert labels[at].tolist() == row["input_ids"][at + 1].tolist()  # a label is the token that follows
    last = instruction(answers="last")
    assert learned(last, last.collate(examples(last.encode(columns(CHATS[-1:]))), DRAW)) == [expected[3]]


def test_an_end_that_is_also_the_padding_is_learned(instruction, fast):
    """plain ends answers with the end-of-text token, which pads, too."""
    own = fast.chat_template
    try:
        fast.chat_template = chat_templates.TEMPLATES["plain"].source
        task = instruction()
        assert task.text.pad_token_id == fast.eos_token_id == task.chat.end_ids[0]
        batch = task.collate(examples(task.encode(columns(CHATS))), DRAW)
        assert learned(task, batch)[0] == " 3<|endoftext|>"
        assert int((batch.targets["labels"] == fast.eos_token_id).sum()) == len(CHATS) + 1
    finally:
        fast.chat_template = own


def test_what_is_too_long_is_cut_or_left_out_and_counted(instruction):
    task = instruction(max_length=64)
    lengths = [len(e["input_ids"]) for e in examples(task.encode(columns(CHATS)))]
    shortest_prompt = min(e["answers"][0] for e in examples(task.encode(columns(CHATS))))
    limit = sorted(lengths)[2]
    cut = instruction(max_length=limit)
    rows = examples(cut.encode(columns(CHATS)))
    assert all(len(row["input_ids"]) <= limit and row["answers"].max() <= limit for row in rows)
    assert cut.text.num_truncated + cut.left_out.total() == sum(length > limit for length in lengths)
    assert len(rows) == len(CHATS) - cut.left_out.total()
    dropping = instruction(max_length=limit, too_long="drop")
    assert len(examples(dropping.encode(columns(CHATS)))) == sum(length <= limit for length in lengths)
    assert dropping.left_out == {"too long": sum(length > limit for length in lengths)} and not dropping.text.num_truncated
    none = instruction(max_length=shortest_prompt)
    assert not examples(none.encode(columns(CHATS)))
    assert none.left_out == {"no answer within max_length": len(CHATS)}


def test_a_refused_conversation_is_named(instruction, fast):
    own = fast.chat_template
    try:
        fast.chat_template = "{% if messages[0]['content'] == 'say yes' %}{{ raise_exception('no') }}{% endif %}" + own
        with pytest.raises(DataError, match="refuses the conversation: no") as refused:
            instruction().encode(columns(CHATS))
        assert refused.value.where == "a.jsonl:3"
    finally:
        fast.chat_template = own


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
def test_packed_conversations_are_as_if_each_stood_alone(instruction, fast, name):
    """Loss and gradients of packed rows are the sums over the conversations one by one."""
    task = instruction(max_length=100, packing=True)
    stored = task.encode(columns(CHATS))
    alone, packed = examples(stored), examples(task.pack(stored))
    assert len(packed) < len(alone) and max(len(e["input_ids"]) for e in packed) <= 100
    model = tiny.model(
        name, "causal_lm", vocab_size=len(fast), **{"n_positions" if name == "gpt2" else "max_position_embeddings": 128}
    )
    together = task.collate(packed, DRAW)
    assert "attention_mask" not in together.inputs
    loss = task.loss(model, together).sum
    loss.backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    total, num_targets = 0.0, 0.0
    for example in alone:
        batch = task.collate([example], DRAW)
        term = task.loss(model, batch).sum
        term.backward()
        total, num_targets = total + term.item(), num_targets + batch.num_targets
    assert loss.item() == pytest.approx(total, rel=1e-5) and together.num_targets == num_targets
    for weight, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(p.grad, grads[weight], rtol=1e-3, atol=1e-5), weight
    with torch.no_grad():
        scores = task.score(model, together)
    assert scores.loss_sums.sum() == pytest.approx(total, rel=1e-5) and scores.weights.sum() == num_targets


def test_scores_of_a_conversation_do_not_depend_on_its_batch(instruction, fast):
    task = instruction()
    rows = examples(task.encode(columns(CHATS)))
    model = tiny.model("llama", "causal_lm", vocab_size=len(fast), max_position_embeddings=64)
    with torch.no_grad():
        both = task.score(model, task.collate(rows, DRAW))
        alone = [task.score(model, task.collate([row], DRAW)) for row in rows]
        loss = task.loss(model, task.collate(rows, DRAW)).sum.item()
    assert both.loss_sums == pytest.approx([scores.loss_sums[0] for scores in alone], rel=1e-6)
    assert both.outputs["num_correct"].tolist() == [int(scores.outputs["num_correct"][0]) for scores in alone]
    assert both.loss_sums.sum() == pytest.approx(loss, rel=1e-6)


@given(lengths=st.lists(st.integers(1, 10), max_size=30), capacity=st.integers(10, 25))
def test_packing_keeps_every_row_once_within_the_capacity(lengths, capacity):
    packed = best_fit(np.array(lengths, np.int64), capacity=capacity)
    assert sorted(row for rows in packed for row in rows) == list(range(len(lengths)))
    sizes = [sum(lengths[row] for row in rows) for rows in packed]
    assert all(size <= capacity for size in sizes)
    fewest = math.ceil(sum(lengths) / capacity)
    assert len(packed) <= max(1, math.ceil(11 / 9 * fewest) + 4) or not lengths  # Johnson 1973, with the slack of a lower bound


def test_a_model_that_does_not_tell_conversations_apart_is_refused():
    with pytest.raises(ModelError, match=r"task\.packing: .* apart"):
        require_isolation(tiny.model("opt", "causal_lm"), key="task.packing")


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_prepared_rows(prepared_rows, kind, packing):
    rows = "".join(json.dumps({"instruction": a, "output": b}) + "\n" for a, b in PAIRS * 6)
    task = {"type": "instruction", "packing": packing}
    how = {"task": task, "model": "gpt", "tokenizer": {"type": kind, "max_length": 48}}
    ready = prepared_rows({"a.jsonl": rows}, **how)
    made = task_of(ready)
    assert isinstance(made, InstructionTask) and made.describe() == ready.meta["task"]
    assert made.chat.end_ids == tuple(made.end_ids) and "<|im_end|>" in made.text.tokenizer.get_vocab()
    assert (ready.directory / "tokenizer" / "chat_template.jinja").is_file()
    assert ready.meta["tokenizer"]["vocab_size"] == len(made.text.tokenizer)
    assert ready.splits["train"].names == ["input_ids", "answers", *(["position_ids"] if packing else [])]
    assert ready.splits["validation"].names == ["input_ids", "answers"]
    entry = ready.meta["account"]["train"][-1]
    assert entry["rows_in"] == entry["rows_out"] == 24 and entry.get("packed rows", 24) == len(ready.splits["train"])
    batch = made.collate([{"id": i, **row} for i, row in enumerate(ready.splits["validation"].rows(range(3)))], DRAW)
    assert batch.num_targets > 3


def test_rows_that_are_all_too_long(prepared_rows):
    rows = "".join(json.dumps({"instruction": "x " * 50, "output": "y"}) + "\n" for _ in range(12))
    with pytest.raises(DataError, match="conversations are too long") as refused:
        prepared_rows({"a.jsonl": rows}, task="instruction", model="gpt", tokenizer={"type": "bpe", "max_length": 16})
    assert "tokenizer.max_length" in refused.value.remedy
