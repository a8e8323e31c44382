"""Losses for classes of unlike size, against the formulas of their papers."""

import numpy as np
import pytest
import torch

from llmtune.config.sections.balance import (
    ClassWeights,
    EffectiveNumber,
    Focal,
    InverseFrequency,
    LogitAdjustment,
    OverSampling,
)
from llmtune.tasks import criterion

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.1, 0.2], [-3.0, 4.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 2])
COUNTS = np.array([700, 200, 100])
P = LOGITS.softmax(-1)[range(4), LABELS]

INVERSE = InverseFrequency(type="inverse_frequency")
FOCAL = Focal(type="focal", gamma=2.0)
ADJUSTED = LogitAdjustment(type="logit_adjustment", tau=1.5)


def losses(*sections, counts=COUNTS, given=()):
    named = {section.type: section for section in sections}
    return criterion.build(named, counts_C=counts, weights_by_label=given)(LOGITS, LABELS)


def effective(beta):
    return EffectiveNumber(type="effective_number", beta=beta)


def test_without_anything_it_is_cross_entropy():
    built = criterion.build({"a": OverSampling(type="oversample", ratio=1.0)}, counts_C=COUNTS, weights_by_label=())
    assert built is criterion.cross_entropy
    assert torch.allclose(built(LOGITS, LABELS), -P.log())


def test_inverse_frequency():
    weights = torch.tensor(1000 / (3 * COUNTS))[LABELS]
    assert torch.allclose(losses(INVERSE), -weights * P.log(), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.999999])
def test_effective_number(beta):
    weights = (1 - beta) / (1 - beta**COUNTS)
    weights *= 1000 / (weights * COUNTS).sum()
    assert torch.allclose(losses(effective(beta)), -torch.tensor(weights)[LABELS] * P.log(), rtol=1e-5)


def test_effective_number_between_its_ends():
    assert torch.allclose(losses(effective(0.0)), losses())
    assert torch.allclose(losses(effective(1 - 1e-9)), losses(INVERSE), rtol=1e-5)


def test_weights_given_by_hand():
    section = ClassWeights(type="class_weights", by_label={"rare": 5.0})
    scale = 1000 / (700 + 200 + 500)
    assert torch.allclose(losses(section, given=[1, 1, 5]), -P.log() * torch.tensor([1, 1, 1, 5]) * scale, rtol=1e-6)
    assert torch.allclose(losses(section, given=[10, 10, 50]), losses(section, given=[1, 1, 5]))


def test_the_mean_weight_of_an_epoch_is_one():
    for section in (INVERSE, effective(0.99)):
        built = criterion.build({"w": section}, counts_C=COUNTS, weights_by_label=())
        assert float((built.weights_C.double() * torch.tensor(COUNTS)).sum()) == pytest.approx(1000, rel=1e-6)


def test_focal():
    assert torch.allclose(losses(FOCAL), -((1 - P) ** 2) * P.log())
    assert torch.allclose(losses(Focal(type="focal", gamma=0.0)), losses())


def test_focal_and_weights():
    weights = torch.tensor(1000 / (3 * COUNTS))[LABELS]
    assert torch.allclose(losses(FOCAL, INVERSE), -weights * (1 - P) ** 2 * P.log(), rtol=1e-6)


def test_logit_adjustment():
    shifted = LOGITS + 1.5 * torch.tensor(COUNTS / 1000).log()
    assert torch.allclose(losses(ADJUSTED), -shifted.log_softmax(-1)[range(4), LABELS], rtol=1e-6)


def test_classes_without_rows():
    for section in (INVERSE, effective(0.999), ADJUSTED):
        assert losses(section, counts=np.array([700, 300, 0])).isfinite().all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("sure", [0.0, 20.0, 1e4])
def test_gradients_are_finite_where_the_model_is_sure(gamma, sure):
    for sign in (1, -1):
        logits = torch.tensor([[sign * sure, -sign * sure]], requires_grad=True)
        loss = criterion.BalancedCrossEntropy(gamma=gamma)(logits, torch.tensor([0]))
        loss.sum().backward()
        assert loss.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize("sections", [[INVERSE], [FOCAL, INVERSE], [ADJUSTED, FOCAL]])
def test_no_cut_into_micro_batches_changes_the_gradient(sections):
    """The sum over the rows of a window, divided by their number, is what the loop makes small."""
    built = criterion.build({s.type: s for s in sections}, counts_C=COUNTS, weights_by_label=())
    features = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
    gradients = []
    for cuts in ([12], [6, 6], [1] * 12, [5, 4, 3]):
        weight = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
        for rows in torch.arange(12).split(cuts):
            (built(features[rows] @ weight, labels[rows]).sum() / 12).backward()
        gradients.append(weight.grad)
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() <= 1e-10 * gradients[0].norm()


SEVERAL = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.float64)
SET = np.array([700, 200, 4])
Q = torch.where(SEVERAL > 0, LOGITS.sigmoid(), (-LOGITS).sigmoid())  # of what is true


def binary(*sections, counts=SET, given=(1, 1, 1)):
    named = {section.type: section for section in sections}
    return criterion.build_binary(named, counts_C=counts, num_rows=1000, weights_by_label=given)(LOGITS, SEVERAL)


def test_several_labels_without_anything():
    assert criterion.build_binary({}, counts_C=SET, num_rows=1000, weights_by_label=(1, 1, 1)) is criterion.binary_cross_entropy
    assert torch.allclose(binary(), -Q.log().mean(-1))


def test_several_labels_weighted_by_frequency():
    weights = torch.where(SEVERAL > 0, torch.tensor(500 / SET), torch.tensor(500 / (1000 - SET)))
    assert torch.allclose(binary(INVERSE), -(weights * Q.log()).mean(-1), rtol=1e-6)
    assert torch.allclose(binary(effective(1 - 1e-9)), binary(INVERSE), rtol=1e-5)
    assert torch.allclose(binary(effective(0.0)), binary())


def test_several_labels_weighted_by_hand():
    section = ClassWeights(type="class_weights", by_label={"rare": 9.0})
    weights = torch.ones(4, 3, dtype=torch.float64)
    weights[:, 2] = torch.where(SEVERAL[:, 2] > 0, 9.0, 1.0) * 1000 / (996 + 9 * 4)
    assert torch.allclose(binary(section, given=[1, 1, 9]), -(weights * Q.log()).mean(-1), rtol=1e-6)


def test_several_labels_in_focus_and_adjusted():
    assert torch.allclose(binary(FOCAL), -((1 - Q) ** 2 * Q.log()).mean(-1))
    shifted = LOGITS + 1.5 * torch.tensor(SET / (1000 - SET)).log()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(shifted, SEVERAL, reduction="none").mean(-1)
    assert torch.allclose(binary(ADJUSTED), expected, rtol=1e-6)


def test_labels_of_no_row_and_of_every_row():
    for section in (INVERSE, effective(0.999), ADJUSTED):
        assert binary(section, counts=np.array([1000, 0, 5])).isfinite().all()
