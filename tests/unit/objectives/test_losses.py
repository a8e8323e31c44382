"""R-Drop, label smoothing and penalties against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from llmtune.config.sections.augment_model import Mixup
from llmtune.config.sections.objective import L1Penalty, L2Penalty, LabelSmoothing, RDrop
from llmtune.errors import ModelError
from llmtune.objectives import penalties, r_drop
from llmtune.objectives.smoothing import smoothed
from llmtune.tasks.base import LossTerms
from llmtune.tasks.criterion import BalancedCrossEntropy, cross_entropy
from tests.unit.objectives.conftest import KINDS, batch, rows_of

R_DROP = RDrop(type="r_drop", alpha=3.0)
L1, L2 = L1Penalty(type="l1", strength=0.01), L2Penalty(type="l2", strength=0.01)


def test_divergence_is_that_of_torchs_distributions():
    one, other = torch.randn(4, 3), torch.randn(4, 3)
    p, q = torch.distributions.Categorical(logits=one), torch.distributions.Categorical(logits=other)
    expected = (torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)) / 2
    torch.testing.assert_close(r_drop.divergence(one, other), expected)
    assert bool((r_drop.divergence(one, one) == 0).all())


@pytest.mark.parametrize("what", ["classification", "regression"])
@pytest.mark.parametrize("kind", KINDS)
def test_r_drop_is_two_passes_and_their_distance(kind, what, model, task, build):
    made, rows = model(kind, what, dropout=0.3), batch(task=what)
    loss_of = build(made, R_DROP, kind=what)
    torch.manual_seed(5)
    terms = loss_of(made, rows)
    torch.manual_seed(5)
    both = made(**{name: torch.cat([t, t]) for name, t in rows.inputs.items()}).logits
    one, other = both[:5], both[5:]
    assert not torch.allclose(one, other)
    losses = [task(what).losses(logits, rows.targets).sum() for logits in (one, other)]
    if what == "regression":
        distance = ((one - other) ** 2).sum() / 2
    else:
        log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
        distance = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / 2  # KL(p|q) + KL(q|p), halved
    torch.testing.assert_close(terms.sum, (losses[0] + losses[1] + 3.0 * distance) / 2)
    torch.testing.assert_close(terms.parts["r_drop"], (1.5 * distance).detach())


def test_r_drop_without_dropout_is_refused(model, build):
    with pytest.raises(ModelError, match="no dropout"):
        build(model("gpt"), R_DROP)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_smoothing_is_torchs_own(weights):
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    weight = None if weights is None else torch.tensor(weights)
    ours = smoothed(BalancedCrossEntropy(weights_C=weight), smoothing=0.1)
    expected = F.cross_entropy(logits, labels, weight=weight, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(ours(logits, labels), expected)
    if weights is None:
        torch.testing.assert_close(smoothed(cross_entropy, smoothing=0.1)(logits, labels), expected)


def test_smoothing_reaches_mixed_rows_and_not_the_evaluation(model, task):
    from llmtune.objectives import registry

    made, rows, kind = model("lstm"), batch(), task()
    with torch.no_grad():
        plain = kind.score(made, rows).loss_sums
    smoothing = LabelSmoothing(type="label_smoothing", smoothing=0.2)
    loss_of = registry.build(kind, made, augment={"m": Mixup(type="mixup", alpha=1.0)}, objective={"s": smoothing})
    torch.manual_seed(0)
    with_smoothing = loss_of(made, rows).sum
    kind.criterion = cross_entropy
    torch.manual_seed(0)
    assert with_smoothing != loss_of(made, rows).sum
    kind.criterion = smoothed(cross_entropy, smoothing=0.2)
    with torch.no_grad():
        assert (kind.score(made, rows).loss_sums == plain).all()


@pytest.mark.parametrize(("asked", "size"), [(L1, torch.abs), (L2, torch.square)], ids=["l1", "l2"])
def test_a_penalty_counts_once_in_a_step(asked, size, model, task, build):
    made, rows = model("bert").double(), batch(6)
    loss_of = build(made, asked)
    expected = 0.01 * sum(size(p).sum() for p in made.parameters() if p.ndim >= 2)
    terms = loss_of(made, rows)
    torch.testing.assert_close(terms.sum / 6, task().loss(made, rows).sum / 6 + expected)
    torch.testing.assert_close(terms.parts[asked.type] / 6, expected.detach())
    parts = [loss_of(made, rows_of(rows, *cut)).sum for cut in ((0, 1), (1, 4), (4, 6))]
    torch.testing.assert_close(sum(parts), terms.sum, rtol=1e-6, atol=0)


def test_frozen_weights_are_not_penalized(model, build):
    made, rows = model("bert"), batch()
    for p in made.bert.parameters():
        p.requires_grad_(False)
    penalty = build(made, L2)(made, rows).parts["l2"] / 5
    torch.testing.assert_close(penalty, 0.01 * made.classifier.weight.detach().square().sum())


def test_penalties_stand_around_any_pass(model, build):
    made, rows = model("bert", dropout=0.1), batch()
    terms = build(made, R_DROP, L1, L2)(made, rows)
    assert list(terms.parts) == ["task", "r_drop", "l1", "l2"]
    torch.testing.assert_close(sum(terms.parts.values()), terms.sum.detach())


def test_what_else_a_task_tells_stays_beside_the_shares(model):
    made, rows = model("bert"), batch()
    told = LossTerms(torch.tensor(3.0), {"accuracy": torch.tensor(2.0)})
    terms = penalties.l2(lambda *_: told, made, strength=0.01)(made, rows)
    assert list(terms.parts) == ["task", "accuracy", "l2"]
    torch.testing.assert_close(terms.parts["task"] + terms.parts["l2"], terms.sum.detach())


def test_without_objectives_it_is_the_loss_of_the_task(model, task):
    from llmtune.objectives import registry

    kind = task()
    assert registry.build(kind, model("lstm"), augment={}, objective={}) == kind.loss
