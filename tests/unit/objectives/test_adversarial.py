"""FGM: the step is that of the formula, goes uphill, and belongs to its row alone."""

import pytest
import torch

from llmtune.config.sections.augment_model import Adversarial
from llmtune.objectives import adversarial
from tests import tiny
from tests.unit.objectives.conftest import KINDS, batch, rows_of


def fgm(epsilon: float = 0.1, weight: float = 1.0) -> Adversarial:
    return Adversarial(type="fgm", epsilon=epsilon, weight=weight)


@pytest.mark.parametrize("what", ["classification", "regression"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_the_formula(kind, what, model, task, build):
    made, rows = model(kind, what), batch(task=what)
    table, mask = made.get_input_embeddings(), rows.inputs["attention_mask"].unsqueeze(-1)
    moved: torch.Tensor | None = None

    def vectors_of(_, __, vectors):
        nonlocal seen
        seen = vectors if moved is None else vectors + moved
        return seen

    seen = None
    hook = table.register_forward_hook(vectors_of)
    clean = task(what).loss(made, rows).sum
    (gradient,) = torch.autograd.grad(clean, seen)
    steps = []
    for g, e, m in zip(gradient, seen, mask, strict=True):  # row by row, as the formula is told
        rms = (e * m).detach()[: int(m.sum())].square().mean().sqrt()
        steps.append(0.1 * rms * (g * m) / (g * m).norm())
    moved = torch.stack(steps)
    expected = clean + 0.5 * task(what).loss(made, rows).sum
    hook.remove()
    terms = build(made, fgm(weight=0.5), kind=what)(made, rows)
    torch.testing.assert_close(terms.sum, expected)
    torch.testing.assert_close(terms.parts["task"] + terms.parts["fgm"], terms.sum.detach())


def test_a_small_step_makes_the_loss_larger(model, build):
    made, rows = model("bert"), batch()
    terms = build(made, fgm(0.05))(made, rows)
    assert terms.parts["fgm"] > terms.parts["task"]


def test_weights_get_the_gradients_of_both_losses(model, task, build):
    """The step counts as given: no gradient goes through it."""
    made, rows = model("lstm"), batch()
    build(made, fgm())(made, rows).sum.backward()
    ours = {name: p.grad.clone() for name, p in made.named_parameters()}
    made.zero_grad()
    table = made.get_input_embeddings()
    task().loss(made, rows).sum.backward()
    steps = []
    original = adversarial.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adversarial, "step", lambda *a, **k: steps.append(original(*a, **k)) or steps[-1])
        build(made, fgm())(made, rows)
    hook = table.register_forward_hook(lambda _, __, vectors: vectors + steps[0])
    task().loss(made, rows).sum.backward()
    hook.remove()
    for name, p in made.named_parameters():
        torch.testing.assert_close(ours[name], p.grad, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_matter_how_a_step_is_cut(kind, model, build):
    made, rows = model(kind).double(), batch(6)
    loss_of = build(made, fgm())
    whole = loss_of(made, rows).sum
    parts = [loss_of(made, rows_of(rows, *cut)).sum for cut in ((0, 1), (1, 4), (4, 6))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=0)


def test_without_a_gradient_nothing_moves():
    zeros = torch.zeros(1, 2, 3)
    assert torch.equal(adversarial.step(zeros, torch.ones(1, 2, 3), torch.ones(1, 2, 1), epsilon=1.0), zeros)


def test_nothing_is_left_behind(model, task, build):
    made, rows = model("bert"), batch()
    before = task().loss(made, rows).sum
    build(made, fgm())(made, rows)
    torch.testing.assert_close(task().loss(made, rows).sum, before, rtol=0, atol=0)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_it_reaches_every_architecture(name, build):
    made, rows = tiny.model(name, "classification"), batch()
    terms = build(made, fgm(0.05))(made, rows)
    assert terms.parts["fgm"] > terms.parts["task"]


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_it_goes_with_activation_checkpointing_and_bf16(kind, model, build):
    made, rows = model(kind, dropout=0.1), batch()
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = build(made, fgm())(made, rows).sum
    plain.backward()
    gradient = made.get_input_embeddings().weight.grad.clone()
    made.zero_grad()
    made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = build(made, fgm())(made, rows).sum
    again.backward()
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(made.get_input_embeddings().weight.grad, gradient)
