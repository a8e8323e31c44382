"""Vectors of n-grams beside those of tokens: what is added to what, and how n-grams are shared out among buckets."""

import pytest
import torch

from llmtune.models import registry
from llmtune.models.lstm import LstmConfig, NgramEmbedding
from tests import tiny


@pytest.fixture
def build(section):
    def make(task="classification", **changes):
        torch.manual_seed(0)
        sizes = {"embedding_size": 6, "hidden_size": 5, "dropout": 0.0, "ngram_buckets": 50}
        return registry.build(section("model/lstm", **{**sizes, **changes}), tiny.spec(task)).eval()

    return make


@pytest.fixture
def table():
    def make(max_ngram=3, ngram_buckets=1000, vocab_size=tiny.VOCAB_SIZE, pad_token_id=tiny.PAD):
        torch.manual_seed(0)
        sizes = {"embedding_size": 4, "max_ngram": max_ngram, "ngram_buckets": ngram_buckets}
        made = NgramEmbedding(LstmConfig(vocab_size=vocab_size, pad_token_id=pad_token_id, **sizes))
        torch.nn.init.normal_(made.ngram_weight)
        return made

    return make


def bucket(ngram: list[int], num_buckets: int) -> int:
    """Of token ids in their order: a polynomial, by Python's own whole numbers."""
    value = 0
    for token in reversed(ngram):
        value = (value + token) * 1_540_483_477 % (2**31 - 1)
    return value % num_buckets


@pytest.mark.parametrize("max_ngram", [2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_token_gets_the_vectors_of_the_ngrams_that_end_with_it(table, max_ngram, length):
    made, ids_BL = table(max_ngram), torch.randint(1, tiny.VOCAB_SIZE, (3, length))
    vectors_BLE = made(ids_BL)
    for b, ids in enumerate(ids_BL.tolist()):
        padded = [tiny.PAD] * (max_ngram - 1) + ids
        for i, token in enumerate(ids):
            end = i + max_ngram
            found = [bucket(padded[end - n : end], 1000) for n in range(2, max_ngram + 1)]
            expected_E = made.weight[token] + made.ngram_weight[found].sum(0)
            torch.testing.assert_close(vectors_BLE[b, i], expected_E)


def test_it_begins_as_the_model_without(build):
    model, batch = build(max_ngram=3), tiny.batch()
    assert not model.encoder.embedding.ngram_weight.any()
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, build(max_ngram=1)(**batch).logits)


def test_order_tells(build):
    """What a bag of tokens cannot: the n-grams alone differ."""
    table = build(max_ngram=2).encoder.embedding
    torch.nn.init.normal_(table.ngram_weight)
    one, other = (table(torch.tensor([ids])).sum(1) for ids in ([5, 6, 7], [7, 6, 5]))
    assert not torch.allclose(one, other, atol=0.1)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_padding_changes_nothing(build, task):
    model, batch = build(task, max_ngram=3), tiny.batch(5, 9)
    torch.nn.init.normal_(model.encoder.embedding.ngram_weight)
    with torch.no_grad():
        together = model(**batch).logits
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            alone = model(**{name: values[row : row + 1, :length] for name, values in batch.items()}).logits
            expected = together[row : row + 1, :length] if task == "tagging" else together[row : row + 1]
            torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)


def test_ngrams_are_spread_evenly(table):
    """No worse than drawn by chance, by which 20,000 pairs leave 1/e of as many buckets empty, and none is crowded."""
    made = table(2, 20_000, vocab_size=6_000)
    pairs = torch.cartesian_prod(torch.arange(3, 203), torch.arange(3, 103))  # the frequent tokens have low ids
    counts = torch.bincount(made.buckets(pairs)[:, 1, 0], minlength=20_000)
    assert (counts == 0).double().mean() < 0.4 and counts.max() < 12


def test_the_largest_vocabulary_does_not_overflow(table):
    made = table(5, 10, vocab_size=11)
    buckets = made.buckets(torch.full((1, 6), 2**31 - 2))
    assert ((buckets >= 0) & (buckets < 10)).all()
    assert buckets[0, 5].tolist() == [bucket([2**31 - 2] * n, 10) for n in range(2, 6)]


def test_to_disk_and_back(build, tmp_path):
    model, batch = build(max_ngram=3), tiny.batch()
    torch.nn.init.normal_(model.encoder.embedding.ngram_weight)
    model.save_pretrained(tmp_path)
    again = registry.load(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert registry.adapt(again, tiny.spec("classification")) is again


def test_word_mixup_and_fgm_take_hold_of_the_sum(build):
    """They hook into the table that the model names, and what they make of its vectors is all that the layers read."""
    model, batch = build(max_ngram=3), tiny.batch()
    torch.nn.init.normal_(model.encoder.embedding.ngram_weight)
    model.get_input_embeddings().register_forward_hook(lambda _, __, vectors: torch.zeros_like(vectors))
    with torch.no_grad():
        logits = model(**batch).logits
        assert torch.equal(logits, model(batch["input_ids"].flip(-1), batch["attention_mask"]).logits)
