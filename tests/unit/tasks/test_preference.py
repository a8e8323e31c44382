"""Preferences: what is stored of a pair, what is cut, and what a model says of both answers, whatever the batch."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from llmtune.data import tokenizer as tokenizers
from llmtune.data.forms import MESSAGES
from llmtune.errors import DataError
from llmtune.evaluation import metrics
from llmtune.evaluation.tally import Tally
from llmtune.tasks import chat_templates, registry
from llmtune.tasks.base import Draw
from llmtune.tasks.preference import REFERENCE, PreferenceTask, ReferenceTask
from llmtune.tasks.preference_losses import LOSSES, settings_of
from llmtune.tasks.text import TextInputs
from tests import tiny

ROWS = [
    ("add 1 2", "3", "4 or 5, who knows"),
    ("name a fruit", "a pear 😀", "no"),
    ("spell cat, letter by letter", "c a t", "cat"),
    ("say yes", "yes", "nein"),
    ("你好", "好", "a b c d e f g h i j"),
]
DRAW = Draw(0, 0)


@pytest.fixture(scope="module")
def fast():
    made = tokenizers.train(
        "bpe", family="gpt", vocab_size=320, min_frequency=1, lowercase=False, texts=[text for row in ROWS for text in row]
    )
    chat_templates.add_tokens(made, "chatml")
    chat_templates.install(made, "chatml")
    return made


@pytest.fixture(scope="module")
def model(fast):
    torch.manual_seed(0)
    config = tiny.model("llama", "causal_lm").config
    config.vocab_size, config.max_position_embeddings = len(fast), 256
    return type(tiny.model("llama", "causal_lm"))(config).eval()


def preference(fast, *, loss="dpo", max_length=200, too_long="cut_prompt", **numbers) -> PreferenceTask:
    text = TextInputs(None, max_length=max_length, pad_token_id=fast.eos_token_id, token_types=False, has_pairs=False)
    text.__dict__["tokenizer"] = fast
    numbers = {"beta": None, "label_smoothing": 0.0, "margin": None, **numbers}
    how = {"system_prompt": None, "too_long": too_long, "end_ids": [fast.eos_token_id]}
    return PreferenceTask(text, loss=loss, settings=settings_of(loss, **numbers), **how)


def columns(rows) -> dict[str, pa.Array]:
    def side(k: int) -> pa.Array:
        return pa.array([[{"role": "user", "content": r[0]}, {"role": "assistant", "content": r[k]}] for r in rows], MESSAGES)

    places = {"file": pa.array(["a.jsonl"] * len(rows)), "row": pa.array(range(1, len(rows) + 1))}
    return {"messages": side(1), "rejected": side(2), **places}


def stored(task: PreferenceTask, rows=ROWS) -> list[dict]:
    found = pa.RecordBatch.from_pydict(task.encode(columns(rows))).to_pylist()
    return [{"id": i, **{name: np.array(values) for name, values in row.items()}} for i, row in enumerate(found)]


def with_reference(rows: list[dict], seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [{**row, **dict(zip(REFERENCE, rng.normal(-20, 5, 2).tolist(), strict=True))} for row in rows]


def plain_log_probs(model, fast, asked: str, answer: str) -> tuple[float, int]:
    """Of an answer and the token that ends it, by the whole logits of one text alone."""
    prompt = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    before, behind = (fast(text, add_special_tokens=False)["input_ids"] for text in (prompt, f"{answer}<|im_end|>"))
    ids = torch.tensor([before + behind])
    with torch.no_grad():
        shares = F.log_softmax(model(input_ids=ids).logits[0, :-1].double(), -1)
    found = shares.gather(1, ids[0, 1:, None])[len(before) - 1 :]
    return float(found.sum()), len(behind)


def test_both_texts_are_read_back(fast):
    task = preference(fast)
    for row, (asked, chosen, rejected) in zip(stored(task), ROWS, strict=True):
        told = task.texts_of(row)
        assert told["prompt"] == f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        assert (told["chosen"], told["rejected"]) == (f"{chosen}<|im_end|>", f"{rejected}<|im_end|>")


def test_log_probabilities_are_those_of_the_whole_logits(fast, model):
    task = preference(fast)
    batch = task.collate(stored(task), DRAW)
    with torch.no_grad():
        both = task.answers(model, batch)
    for side, answers in enumerate(both, 1):
        for i, row in enumerate(ROWS):
            log_prob, length = plain_log_probs(model, fast, row[0], row[side])
            assert answers.log_prob[i].item() == pytest.approx(log_prob, rel=1e-5)
            assert answers.length[i] == length


@pytest.mark.parametrize("loss", LOSSES)
def test_metrics_are_the_same_in_batches_of_any_size(fast, model, loss):
    task = preference(fast, loss=loss)
    rows = with_reference(stored(task))
    found = []
    for size in (1, 2, 5):
        tally = Tally()
        with torch.inference_mode():
            for start in range(0, len(rows), size):
                batch = task.collate(rows[start : start + size], DRAW)
                assert batch.num_targets == len(rows[start : start + size])
                tally.add(task.score(model, batch))
        found.append(metrics.compute("preference", tally))
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5, abs=1e-5)
    with torch.no_grad():
        terms = task.loss(model, task.collate(rows, DRAW))
    assert terms.sum.item() / len(rows) == pytest.approx(found[0]["loss"], rel=1e-5)
    for name in ("accuracy", "margin"):
        assert terms.parts[name].item() / len(rows) == pytest.approx(found[0][name], rel=1e-4, abs=1e-5)
    assert found[0]["margin"] == pytest.approx(found[0]["chosen_reward"] - found[0]["rejected_reward"])


def test_rewards_of_dpo_are_relative_to_the_reference(fast, model):
    task = preference(fast, beta=0.5)
    with torch.inference_mode():
        own = task.answers(model, task.collate(stored(task), DRAW))
        rows = [
            {**row, REFERENCE[0]: own[0].log_prob[i].item() - 2, REFERENCE[1]: own[1].log_prob[i].item() + 1}
            for i, row in enumerate(stored(task))
        ]
        outputs = task.score(model, task.collate(rows, DRAW)).outputs
    assert outputs["chosen_reward"] == pytest.approx(np.full(5, 1.0), abs=1e-4)
    assert outputs["rejected_reward"] == pytest.approx(np.full(5, -0.5), abs=1e-4)


def test_the_reference_of_the_model_itself_makes_rewards_zero(fast, model):
    task = preference(fast)
    rows = stored(task)
    with torch.inference_mode():
        scores = ReferenceTask(task).score(model, task.collate(rows, DRAW))
        beside = [{**row, **{name: scores.outputs[name][i] for name in REFERENCE}} for i, row in enumerate(rows)]
        found = task.score(model, task.collate(beside, DRAW))
    assert found.loss_sums == pytest.approx(np.full(5, math.log(2)), abs=1e-6)
    assert found.sums["right"] == 0  # a tie is not right


@pytest.mark.parametrize("max_length", [20, 24, 30])
def test_the_prompt_loses_its_beginning(fast, max_length):
    whole, task = stored(preference(fast)), preference(fast, max_length=max_length)
    cut = stored(task)
    for row, full in zip(cut, whole, strict=True):
        ids, (first, behind, other, end) = row["input_ids"], row["pair"]
        long = max(full["pair"][1], full["pair"][3] - full["pair"][1])
        assert max(behind, end - behind) <= max_length and first == other - behind
        num_cut = max(0, long - max_length)
        assert (ids[first:behind] == full["input_ids"][full["pair"][0] : full["pair"][1]]).all()
        assert (ids[:first] == full["input_ids"][num_cut : full["pair"][0]]).all()
    num_long = sum(max(row["pair"][1], row["pair"][3] - row["pair"][1]) > max_length for row in whole)
    assert task.text.num_truncated == num_long and not task.left_out


def test_a_long_answer_is_cut_where_no_prompt_is_left(fast):
    task = preference(fast, max_length=6)
    rows = stored(task, [("a long question", "one two three four five", "six seven eight nine ten eleven")])
    first, behind, other, end = rows[0]["pair"]
    assert (first, behind, other - behind, end - behind) == (1, 6, 1, 6)


def test_answers_lose_their_end_or_the_pair_goes(fast):
    whole = stored(preference(fast))
    prompts, chosen = [row["pair"][0] for row in whole], [row["pair"][1] for row in whole]
    limit = int(max(prompts)) + 1
    task = preference(fast, max_length=limit, too_long="cut_answer")
    for row in stored(task):
        first, behind, other, end = row["pair"]
        assert first < behind <= limit and other < end <= behind + limit
    task = preference(fast, max_length=int(prompts[2]), too_long="cut_answer")
    left = stored(task)
    assert len(left) == 5 - task.left_out.total() < 5 and set(task.left_out) <= {
        "no answer within max_length",
        "answers alike within max_length",
    }
    task = preference(fast, max_length=int(max(chosen)), too_long="drop")
    assert len(stored(task)) + task.left_out["too long"] == 5 and task.left_out and not task.text.num_truncated


def test_answers_that_differ_behind_the_cut_teach_nothing(fast):
    task = preference(fast, max_length=24, too_long="cut_answer")
    assert stored(task, [("say", "b " * 40 + "yes", "b " * 40 + "no")]) == []
    assert task.left_out == {"answers alike within max_length": 1}


@given(
    st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4),
    st.integers(2, 60),
)
def test_any_text_fits_or_is_counted(fast, rows, max_length):
    rows = [row for row in rows if all(text.strip() for text in row) and row[1] != row[2]]
    for too_long in ("cut_prompt", "cut_answer", "drop"):
        task = preference(fast, max_length=max_length, too_long=too_long)
        kept = stored(task, rows) if rows else []
        assert len(kept) + task.left_out.total() == len(rows)
        for row in kept:
            first, behind, other, end = row["pair"]
            assert 1 <= first < behind <= max_length and 1 <= other - behind < end - behind <= max_length
            assert end == len(row["input_ids"])
        if kept:
            batch = task.collate(kept, DRAW)
            assert batch.inputs["input_ids"].shape[0] == 2 * len(kept)
            assert ((batch.targets["labels"] != -100).sum(1) > 0).all()


def test_a_row_that_the_template_refuses_is_named(fast, monkeypatch):
    task = preference(fast)
    monkeypatch.setattr(task.chat, "_template", "{{ raise_exception('no') if messages[0]['content'] == 'say yes' }}")
    with pytest.raises(DataError) as caught:
        task.encode(columns(ROWS))
    assert caught.value.where == "a.jsonl:4"


@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_rebuilt_from_what_it_tells(fast, loss):
    task = preference(fast, loss=loss, beta=0.7, margin=0.25)
    again = registry.rebuild(task.describe(), None)
    assert again.describe() == task.describe() and again.settings == task.settings
    assert registry.model_spec(task.describe(), {}).task == "causal_lm"
