"""Mixup against its formulas: what is mixed, with what, and what the loss is."""

import pytest
import torch

from llmtune.config.sections.augment_model import Mixup, WordMixup
from llmtune.errors import ModelError
from llmtune.objectives import mixup
from tests import tiny
from tests.unit.objectives.conftest import KINDS, batch, rows_of

MIXUP, WORDS = Mixup(type="mixup", alpha=0.4), WordMixup(type="word_mixup", alpha=0.4)


@pytest.fixture
def drawn(monkeypatch):
    """The pairs and shares that every draw gives."""
    partner_B, share_B = torch.tensor([1, 2, 3, 4, 0]), torch.tensor([0.9, 0.2, 0.5, 1.0, 0.0])
    monkeypatch.setattr(mixup, "draw", lambda *_: (partner_B, share_B))
    return partner_B, share_B


def losses(task, logits, rows, drawn, name):
    partner_B, share_B = drawn
    own, other = task.losses(logits, rows.targets), task.losses(logits, {name: rows.targets[name][partner_B]})
    return (share_B * own + (1 - share_B) * other).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_mixing_answers_is_mixing_what_the_output_layer_reads(kind, model, task, build, drawn):
    made, rows = model(kind), batch()
    partner_B, share_B = drawn
    read = []
    head = made.score if kind == "gpt" else made.classifier
    hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    made(**rows.inputs)
    hook.remove()
    vectors_BH = read[0]
    if kind == "gpt":  # whose output layer reads all tokens, and of these the last one counts
        vectors_BH = vectors_BH[torch.arange(5), rows.lengths - 1]
    mixed = share_B[:, None] * vectors_BH + (1 - share_B)[:, None] * vectors_BH[partner_B]
    expected = losses(task(), head(mixed), rows, drawn, "labels")
    torch.testing.assert_close(build(made, MIXUP)(made, rows).sum, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["classification", "regression"])
def test_words_are_mixed_place_by_place(kind, what, model, task, build, drawn):
    """By hand: the table is made to answer what the mixed vectors are."""
    made, rows = model(kind, what), batch(task=what)
    partner_B, share_B = drawn
    ids_BL, mask_BL = rows.inputs["input_ids"], rows.inputs["attention_mask"]
    table = made.get_input_embeddings()
    vectors = table(ids_BL).detach() * mask_BL.unsqueeze(-1)
    mixed = share_B[:, None, None] * vectors + (1 - share_B)[:, None, None] * vectors[partner_B]
    union_BL = torch.maximum(mask_BL, mask_BL[partner_B])
    # of what kind the tokens are does not matter, but that the padding is behind them
    hook = table.register_forward_hook(lambda *_: mixed)
    logits = made(input_ids=union_BL * 7, attention_mask=union_BL).logits
    hook.remove()
    expected = losses(task(what), logits, rows, drawn, "labels" if what == "classification" else "values")
    torch.testing.assert_close(build(made, WORDS, kind=what)(made, rows).sum, expected)


@pytest.mark.parametrize("asked", [MIXUP, WORDS], ids=lambda s: s.type)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_shares_change_nothing(asked, kind, model, task, build, monkeypatch):
    monkeypatch.setattr(mixup, "draw", lambda n, *_: (torch.arange(n).flip(0), torch.ones(n)))
    made, rows = model(kind), rows_of(batch(), 0, 5)
    rows.inputs["attention_mask"].fill_(1)  # of rows of unlike length, the shorter is filled up with zero vectors
    expected = task().loss(made, rows).sum
    torch.testing.assert_close(build(made, asked)(made, rows).sum, expected)
    torch.testing.assert_close(task().loss(made, rows).sum, expected)  # nothing is left behind


def test_in_a_regression_it_is_mixing_the_targets(model, task, build, drawn):
    """Up to a constant, so that the gradients are equal."""
    made, rows = model("lstm", "regression"), batch(task="regression")
    partner_B, share_B = drawn
    build(made, MIXUP, kind="regression")(made, rows).sum.backward()
    ours = made.classifier.weight.grad.clone()
    made.zero_grad()
    answers, values = made(**rows.inputs).logits.squeeze(-1), rows.targets["values"]
    mixed = [share_B * t + (1 - share_B) * t[partner_B] for t in (answers, values)]
    (mixed[0] - mixed[1]).square().sum().backward()
    torch.testing.assert_close(ours, made.classifier.weight.grad)


def test_draws_follow_the_generator_alone():
    torch.manual_seed(3)
    first = mixup.draw(6, 0.4, torch.device("cpu"))
    torch.manual_seed(3)
    second = mixup.draw(6, 0.4, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert sorted(first[0].tolist()) == list(range(6))


@pytest.mark.parametrize(("alpha", "variance"), [(0.4, 0.25 / 1.8), (1.0, 1 / 12), (8.0, 0.25 / 17)])
def test_shares_have_the_spread_of_the_distribution(alpha, variance):
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))."""
    torch.manual_seed(0)
    _, shares = mixup.draw(20_000, alpha, torch.device("cpu"))
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.var()) == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("alpha", [1e-6, 1e6])
def test_extreme_shares_are_numbers(alpha):
    _, shares = mixup.draw(1000, alpha, torch.device("cpu"))
    assert bool(((shares >= 0) & (shares <= 1)).all())


@pytest.mark.parametrize("asked", [MIXUP, WORDS], ids=lambda s: s.type)
def test_one_row_is_itself(asked, model, task, build):
    made, rows = model("bert"), batch(1)
    torch.testing.assert_close(build(made, asked)(made, rows).sum, task().loss(made, rows).sum)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_it_reaches_every_architecture(name, build):
    made, rows = tiny.model(name, "classification"), batch()
    build(made, WORDS)(made, rows).sum.backward()
    assert made.get_input_embeddings().weight.grad.abs().sum() > 0


def test_a_model_without_word_vectors_is_refused(build, section):
    from llmtune.models import registry as models

    made = models.build(section("model/mlp"), tiny.spec("regression", num_features=1, feature_mean=(0.0,), feature_std=(1.0,)))
    with pytest.raises(ModelError, match="word vectors"):
        build(made, WORDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_model_mixes_words_too(kind, model, build):
    made = model(kind)
    loss_of = build(made, WORDS)
    compiled = torch.compile(made, dynamic=True, backend="aot_eager")
    for number in (5, 4, 6):
        losses = []
        for called in (made, compiled):
            torch.manual_seed(number)
            losses.append(loss_of(called, batch(number, seed=number)).sum)
        torch.testing.assert_close(*losses)
