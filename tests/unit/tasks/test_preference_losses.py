"""Losses of preferences against their formulas, term by term in float64, and at the ends of what probabilities can be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmtune.tasks.preference_losses import LOSSES, Answers, Settings, settings_of

log_probs = st.floats(-300, -0.01)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def expected(loss: str, c: float, r: float, ref_c: float, ref_r: float, n_c: int, n_r: int, s: Settings) -> float:
    match loss:
        case "dpo":
            d = s.beta * ((c - ref_c) - (r - ref_r))
            return -(1 - s.label_smoothing) * math.log(sigmoid(d)) - s.label_smoothing * math.log(sigmoid(-d))
        case "ipo":
            return ((c - ref_c) / n_c - (r - ref_r) / n_r - 1 / (2 * s.beta)) ** 2
        case "orpo":
            odds = [math.exp(m) / (1 - math.exp(m)) for m in (c / n_c, r / n_r)]
            return -c / n_c - s.beta * math.log(sigmoid(math.log(odds[0] / odds[1])))
    return -math.log(sigmoid(s.beta / n_c * c - s.beta / n_r * r - s.margin))


@pytest.mark.parametrize("loss", LOSSES)
@given(st.tuples(*[log_probs] * 4), st.tuples(st.integers(1, 60), st.integers(1, 60)), st.floats(0, 0.4))
def test_it_is_the_formula(loss, numbers, lengths, smoothing):
    c, r, ref_c, ref_r = numbers
    settings = settings_of(loss, beta=None, label_smoothing=smoothing, margin=None)
    both = [
        Answers(*(torch.tensor([x], dtype=torch.float64) for x in (own, reference, length)))
        for own, reference, length in ((c, ref_c, lengths[0]), (r, ref_r, lengths[1]))
    ]
    found = LOSSES[loss].of(*both, settings)
    assert found.item() == pytest.approx(expected(loss, c, r, ref_c, ref_r, *lengths, settings), rel=1e-9, abs=1e-9)


def test_settings_are_those_of_the_papers():
    given_none = {"beta": None, "label_smoothing": 0.0, "margin": None}
    assert settings_of("dpo", **given_none).beta == settings_of("orpo", **given_none).beta == 0.1
    assert settings_of("simpo", **given_none) == Settings(2.0, 0.0, 1.0)
    assert settings_of("simpo", beta=10.0, label_smoothing=0.0, margin=0.0) == Settings(10.0, 0.0, 0.0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, -5e4), (-5e4, 0.0), (0.0, 0.0), (-1e-9, -1e-9)])
def test_certain_answers_have_finite_losses_and_gradients(loss, chosen, rejected):
    numbers = torch.tensor([chosen, rejected], requires_grad=True)
    both = [Answers(numbers[i : i + 1], torch.zeros(1), torch.ones(1)) for i in (0, 1)]
    value = LOSSES[loss].of(*both, settings_of(loss, beta=None, label_smoothing=0.1 if loss == "dpo" else 0.0, margin=None))
    value.sum().backward()
    assert value.isfinite().all() and numbers.grad.isfinite().all()


def test_an_untrained_model_loses_log_two():
    same = Answers(torch.tensor([-7.0]), torch.tensor([-7.0]), torch.tensor([3.0]))
    assert LOSSES["dpo"].of(same, same, Settings(0.1, 0.2, 0.0)).item() == pytest.approx(math.log(2))
