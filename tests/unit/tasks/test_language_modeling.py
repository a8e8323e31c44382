"""Next tokens and masks: what is predicted, how often, and that padding and batches do not matter."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmtune.errors import ModelError
from llmtune.tasks.base import Draw
from llmtune.tasks.language_modeling import IGNORED, CausalLmTask, MaskedLmTask, require_isolation, token_losses
from llmtune.tasks.prepare import task_of
from llmtune.tasks.text import TextInputs
from tests import tiny

SPECIAL = (0, 1, 2, 3)
MASK = 4
VOCAB = 50


class Letters:
    """Stands in for a tokenizer: each letter is its place in the alphabet, from 10."""

    def __call__(self, texts, **options):
        return {"input_ids": [[ord(char) - ord("a") + 10 for char in text] for text in texts]}


def causal(max_length=4, end_of_text=0, **options) -> CausalLmTask:
    text = TextInputs(None, max_length=max_length, pad_token_id=0, token_types=False, has_pairs=False)
    text.__dict__["tokenizer"] = Letters()
    return CausalLmTask(text, end_of_text=end_of_text, **options)


def masked(mask_probability=0.15, pad_token_id=0) -> MaskedLmTask:
    text = TextInputs(None, max_length=600, pad_token_id=pad_token_id, token_types=False, has_pairs=False)
    return MaskedLmTask(text, mask_probability=mask_probability, mask_token_id=MASK, special_ids=SPECIAL, vocab_size=VOCAB)


def blocks_of(task, chunks) -> list[list[int]]:
    return [ids for stored in task.encode_stream(columns(chunks)) for ids in stored["input_ids"].to_pylist()]


def columns(chunks) -> list[dict[str, pa.Array]]:
    return [{"text": pa.array(chunk, pa.string())} for chunk in chunks]


def examples(rows) -> list[dict]:
    return [{"id": i, "input_ids": np.array(row, np.int32)} for i, row in enumerate(rows)]


CHUNKS = st.lists(st.lists(st.text("abc", max_size=6) | st.none(), max_size=4), min_size=1, max_size=4)


@given(chunks=CHUNKS, max_length=st.integers(2, 7), end_of_text=st.sampled_from([0, None]))
def test_every_token_but_the_first_is_predicted_once_in_order(chunks, max_length, end_of_text):
    task = causal(max_length, end_of_text)
    tail = [] if end_of_text is None else [end_of_text]
    stream = [token for chunk in chunks for text in chunk for token in [*Letters()([text or ""])["input_ids"][0], *tail]]
    blocks = blocks_of(task, chunks)
    assert [token for block in blocks for token in block[1:]] == stream[1:]
    if blocks:
        batch = task.collate(examples(blocks), Draw(0, 0))
        assert batch.inputs["input_ids"].shape[1] <= max_length
        assert batch.targets["labels"][batch.targets["labels"] != IGNORED].tolist() == stream[1:]
        assert batch.num_targets == len(stream) - 1 == int((batch.targets["labels"] != IGNORED).sum())
        context = [ids[:length] for ids, length in zip(batch.inputs["input_ids"].tolist(), batch.lengths.tolist(), strict=True)]
        assert [token for ids in context for token in ids] == stream[:-1]


@given(chunks=CHUNKS)
def test_chunks_do_not_show_in_the_blocks(chunks):
    whole = [text for chunk in chunks for text in chunk]
    assert blocks_of(causal(), chunks) == blocks_of(causal(), [whole])


def test_the_end_of_text_is_learned_though_it_pads():
    task = causal(max_length=4, end_of_text=0)
    batch = task.collate(examples(blocks_of(task, [["ab", "c"]])), Draw(0, 0))
    assert batch.inputs["input_ids"].tolist() == [[10, 11, 0, 12]]
    assert batch.targets["labels"].tolist() == [[11, 0, 12, 0]]
    batch = task.collate(examples([[10, 11, 0, 12, 0], [10, 0]]), Draw(0, 0))
    assert batch.inputs["input_ids"][1].tolist() == [10, 0, 0, 0]
    assert batch.targets["labels"][1].tolist() == [0, IGNORED, IGNORED, IGNORED]
    assert batch.inputs["attention_mask"][1].tolist() == [1, 0, 0, 0] and batch.num_targets == 5


def test_a_lone_row_is_cut_to_one_block():
    task = causal(max_length=4)
    assert task.encode({"text": pa.array(["abcdefgh", None])})["input_ids"].to_pylist() == [[10, 11, 12, 13, 14], [0]]


@pytest.mark.parametrize("make", [causal, masked])
def test_the_loss_is_a_sum_over_predicted_tokens(make, fixed):
    task = make()
    batch = task.collate(examples([[10, 11, 12, 13, 14], [15, 16]]), Draw(0, 0))
    labels = batch.targets["labels"]
    logits = torch.randn(*labels.shape, VOCAB, generator=torch.Generator().manual_seed(0))
    model = fixed(logits.clone())
    loss = task.loss(model, batch).sum
    log_shares = logits.log_softmax(-1)
    places = [(b, t) for b in range(labels.shape[0]) for t in range(labels.shape[1]) if labels[b, t] != IGNORED]
    by_hand = [-float(log_shares[b, t, labels[b, t]]) for b, t in places]
    assert loss.item() == pytest.approx(sum(by_hand), rel=1e-6) and batch.num_targets == len(places)
    loss.backward()
    assert {(b, t) for b, t, _ in model.logits.grad.nonzero().tolist()} == set(places)
    with torch.no_grad():
        scores = task.score(model, batch)
    for b in range(2):
        assert scores.loss_sums[b] == pytest.approx(
            sum(v for (row, _), v in zip(places, by_hand, strict=True) if row == b), rel=1e-6
        )
    assert scores.weights.tolist() == [sum(row == b for row, _ in places) for b in range(2)]
    right = [sum(int(logits[b, t].argmax()) == int(labels[b, t]) for row, t in places if row == b) for b in range(2)]
    assert scores.outputs["num_correct"].tolist() == right
    assert token_losses(logits, labels).sum().item() == pytest.approx(sum(by_hand), rel=1e-6)


def test_correct_tokens_are_counted(fixed):
    task = causal()
    batch = task.collate(examples([[10, 11, 12, 13], [15, 16]]), Draw(0, 0))
    labels = batch.targets["labels"].clamp(min=0)
    labels[0, 1] = 20
    with torch.no_grad():
        scores = task.score(fixed(torch.nn.functional.one_hot(labels, VOCAB).float()), batch)
    assert scores.outputs["num_correct"].tolist() == [2, 1] and scores.weights.tolist() == [3.0, 1.0]


def random_rows(num_rows=60, length=500) -> list[dict]:
    rng = np.random.default_rng(0)
    return examples([[2, *rng.integers(10, VOCAB, length), 3] for _ in range(num_rows)])


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_the_shares_of_masks(probability):
    rows = random_rows()
    batch = masked(probability).collate(rows, Draw(0, 0))
    before = np.stack([row["input_ids"] for row in rows])
    after, labels = batch.inputs["input_ids"].numpy(), batch.targets["labels"].numpy()
    chosen = labels != IGNORED
    assert (labels[chosen] == before[chosen]).all() and (after[~chosen] == before[~chosen]).all()
    assert chosen.sum() / (60 * 500) == pytest.approx(probability, abs=0.008)
    hidden, kept = (after == MASK)[chosen].mean(), (after == before)[chosen].mean()
    assert hidden == pytest.approx(0.8 + 0.1 / VOCAB, abs=0.02)
    assert kept == pytest.approx(0.1 + 0.1 / VOCAB, abs=0.02)
    replaced = after[chosen & (after != MASK) & (after != before)]
    assert replaced.min() < 10 and replaced.max() == VOCAB - 1
    assert batch.num_targets == chosen.sum()


def test_special_tokens_and_padding_are_never_masked():
    task = masked(0.9)
    rows = examples([[2, 1, 11, 0, 3], [2, *range(10, 40), 3], [2, 3], []])
    for epoch in range(20):
        batch = task.collate(rows, Draw(0, epoch))
        ids, labels = batch.inputs["input_ids"], batch.targets["labels"]
        assert not set(labels[labels != IGNORED].tolist()) & set(SPECIAL)
        assert labels[0].tolist() == [IGNORED, IGNORED, 11] + [IGNORED] * 29  # one of each row at least
        assert (labels[2:] == IGNORED).all()
        assert ids[0, [0, 1, 3, 4]].tolist() == [2, 1, 0, 3] and (ids[0, 5:] == 0).all()


def test_padding_is_never_masked_though_its_token_is_a_word():
    task, rows = masked(0.9, pad_token_id=20), examples([[2, 20, 3], [2, *range(10, 40), 3]])
    batch = task.collate(rows, Draw(0, 0))
    assert batch.targets["labels"][0].tolist() == [IGNORED, 20] + [IGNORED] * 30
    assert batch.inputs["input_ids"][0, 3:].tolist() == [20] * 29


def masks_of(task, rows, draw) -> dict[int, tuple]:
    batch = task.collate(rows, draw)
    found = zip(batch.example_ids.tolist(), batch.inputs["input_ids"].tolist(), batch.targets["labels"].tolist(), strict=True)
    lengths = batch.lengths.tolist()
    return {example: (ids[:n], labels[:n]) for (example, ids, labels), n in zip(found, lengths, strict=True)}


@pytest.mark.parametrize("training", [True, False])
def test_a_row_has_the_same_masks_in_every_batch(training):
    task, rows = masked(), [*random_rows(6, 40), {"id": 6, "input_ids": np.arange(10, 15, dtype=np.int32)}]
    draw = Draw(3, 1, training=training)
    whole = masks_of(task, rows, draw)
    assert whole == masks_of(task, rows[::-1], draw)
    for row in rows:
        assert masks_of(task, [row], draw)[row["id"]] == whole[row["id"]]


def test_masks_change_with_seed_epoch_and_row():
    task, row = masked(), random_rows(1, 100)[0]
    rows = [{**row, "id": i} for i in range(5)]
    draws = [Draw(0, 0), Draw(0, 1), Draw(1, 0)]
    assert len({str(found) for draw in draws for found in masks_of(task, rows, draw).values()}) == 15


def test_masks_of_an_evaluation_are_fixed():
    task, rows = masked(), random_rows(5, 100)
    evaluation = [masks_of(task, rows, Draw(0, epoch, training=False)) for epoch in range(3)]
    assert evaluation[0] == evaluation[1] == evaluation[2] != masks_of(task, rows, Draw(0, 0))
    assert masks_of(task, rows, Draw(1, 0, training=False)) != evaluation[0]


def test_stored_rows_are_not_touched():
    rows = random_rows(3, 50)
    before = [row["input_ids"].copy() for row in rows]
    masked(0.9).collate(rows, Draw(0, 0))
    assert all((row["input_ids"] == ids).all() for row, ids in zip(rows, before, strict=True))


def test_rows_of_a_table_end_and_lines_of_text_do_not(prepared_rows):
    split = {"validation_fraction": 0, "test_fraction": 0}
    table = prepared_rows({"a.csv": "text\none two\nthree\n"}, task="causal_lm", split=split)
    lines = prepared_rows({"a.txt": "one two\nthree\n"}, task="causal_lm", split=split)
    decoded = {}
    for name, ready in (("table", table), ("lines", lines)):
        task = task_of(ready)
        assert ready.meta["splits"]["train"]["rows"] == 1
        decoded[name] = task.text.tokenizer.decode(ready.splits["train"].row(0)["input_ids"])
    assert decoded == {"table": "one two<|endoftext|>three<|endoftext|>", "lines": "one two\nthree\n"}


def test_a_masked_model_of_padding_sees_none(prepared_rows):
    rows = "".join(f"{'word ' * (i % 7 + 1)}{i}\n" for i in range(30))
    ready = prepared_rows({"a.csv": "text\n" + rows}, task="masked_lm", split="random")
    task = task_of(ready)
    train = ready.splits["train"]
    batch = task.collate([{**row, "id": i} for i, row in enumerate(train.rows(range(len(train))))], Draw(0, 0))
    assert (batch.targets["labels"][batch.inputs["attention_mask"] == 0] == IGNORED).all()
    assert batch.inputs["attention_mask"].sum(-1).tolist() == train.lengths.tolist() == batch.lengths.tolist()


def test_padding_behind_a_causal_row_changes_nothing():
    """A tiny GPT-2 gives a row the same loss alone and beside a longer one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    ).eval()
    task, rows = causal(max_length=12), examples([[10, 11, 12], list(range(10, 22))])
    with torch.no_grad():
        both = task.score(model, task.collate(rows, Draw(0, 0)))
        alone = [task.score(model, task.collate([row], Draw(0, 0))) for row in rows]
    assert both.loss_sums == pytest.approx([scores.loss_sums[0] for scores in alone], rel=1e-6)


PACKED = ["gpt2", "gpt_neox", "llama", "qwen2"]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", PACKED)
def test_isolated_rows_are_as_if_each_stood_alone(name, attention):
    """Loss and gradients of packed rows are the sums over the rows one by one, those included that a block cuts in two."""
    task = causal(max_length=11, isolate_documents=True)
    texts = ["abcab", "b", "cabcabca", "abc", "bcabcabcabcab", "ca"]
    stored = _joined(task.encode_stream(columns([texts])))
    packed = [{"id": i, "input_ids": ids, "position_ids": at} for i, (ids, at) in enumerate(zip(*stored.values(), strict=True))]
    model = tiny.model(name, "causal_lm", attn_implementation=attention)
    together = task.collate(packed, Draw(0, 0))
    assert len(together.inputs["input_ids"]) == 4 and "attention_mask" not in together.inputs
    loss = task.loss(model, together).sum
    loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    alone, num_targets = 0.0, 0
    for part in _parts(packed):
        batch = causal(max_length=99).collate(examples([part]), Draw(0, 0))
        term = task.loss(model, batch).sum
        term.backward()
        alone, num_targets = alone + term.item(), num_targets + batch.num_targets
    assert loss.item() == pytest.approx(alone, rel=1e-5) and together.num_targets == num_targets
    for weight, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(p.grad, expected[weight], rtol=1e-3, atol=1e-5), weight


def test_a_model_that_does_not_isolate_is_refused():
    for name in PACKED:
        require_isolation(tiny.model(name, "causal_lm"), key="task.isolate_documents")
    with pytest.raises(ModelError, match="isolate_documents"):
        require_isolation(tiny.model("opt", "causal_lm"), key="task.isolate_documents")


def _joined(chunks) -> dict[str, list]:
    joined: dict[str, list] = {}
    for chunk in chunks:
        for name, values in chunk.items():
            joined.setdefault(name, []).extend(np.array(row) for row in values.to_pylist())
    return joined


def _parts(packed: list[dict]) -> list[np.ndarray]:
    """The rows, or parts of rows, that have something to predict."""
    parts = []
    for block in packed:
        starts = [0, *(np.flatnonzero(block["position_ids"][1:] == 0) + 1).tolist(), len(block["input_ids"])]
        parts += [block["input_ids"][a:b] for a, b in zip(starts, starts[1:], strict=False) if b - a > 1]
    return parts


@given(chunks=CHUNKS, max_length=st.integers(2, 7))
def test_isolation_changes_no_token_and_spares_first_ones(chunks, max_length):
    plain, apart = causal(max_length), causal(max_length, isolate_documents=True)
    stored = _joined(apart.encode_stream(columns(chunks)))
    blocks = stored.get("input_ids", [])
    assert [ids.tolist() for ids in blocks] == blocks_of(plain, chunks)
    num_first = 0
    for ids, places in zip(blocks, stored.get("position_ids", []), strict=True):
        assert len(ids) == len(places) and places[0] == 0
        assert all(b in (0, a + 1) for a, b in zip(places, places[1:], strict=False))
        num_first += int((places[1:] == 0).sum())
    if blocks:
        packed = [{"id": 0, "input_ids": ids, "position_ids": at} for ids, at in zip(*stored.values(), strict=True)]
        assert (
            apart.collate(packed, Draw(0, 0)).num_targets == plain.collate(examples(blocks), Draw(0, 0)).num_targets - num_first
        )
