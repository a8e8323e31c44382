"""What is made small where of two answers one is preferred: dpo, ipo, orpo, simpo. P: pairs.

c: the chosen answer, r: the rejected one; log p: of an answer's tokens together, and reference: the same of the model that
training starts from; m: log p of the mean token; s: sigmoid.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LOG_HALF = -0.6931471805599453


@dataclass(frozen=True)
class Answers:
    """What a model says of one answer of each pair.

    Attributes:
        log_prob: of all its tokens, float32 [P].
        reference: the same of the model that training started from; None for losses without one.
        length: number of its tokens, float32 [P].
    """

    log_prob: Tensor
    reference: Tensor | None
    length: Tensor

    @property
    def log_ratio(self) -> Tensor:
        return self.log_prob - self.reference

    @property
    def mean(self) -> Tensor:
        return self.log_prob / self.length


@dataclass(frozen=True)
class Settings:
    """The numbers of a loss, see `PreferenceTask` of config/sections/model.py."""

    beta: float
    label_smoothing: float
    margin: float


def dpo(chosen: Answers, rejected: Answers, settings: Settings) -> Tensor:
    """-(1 - e) log s(d) - e log s(-d), d = beta (log p_c / reference_c - log p_r / reference_r), e = label_smoothing; [P].

    Rafailov et al. 2023, https://arxiv.org/abs/2305.18290; e: Mitchell 2023, https://ericmitchell.ai/cdpo.pdf
    """
    difference_P = settings.beta * (chosen.log_ratio - rejected.log_ratio)
    smoothing = settings.label_smoothing
    return -(1 - smoothing) * F.logsigmoid(difference_P) - smoothing * F.logsigmoid(-difference_P)


def ipo(chosen: Answers, rejected: Answers, settings: Settings) -> Tensor:
    """(m_c - reference_c - m_r + reference_r - 1 / (2 beta))², all of the mean token; [P].

    Azar et al. 2024, https://arxiv.org/abs/2310.12036, equation 17, whose sums over tokens grow with the answer: with means, as
    in its authors' experiments, one beta serves all lengths.
    """
    difference_P = chosen.log_ratio / chosen.length - rejected.log_ratio / rejected.length
    return (difference_P - 1 / (2 * settings.beta)).square()


def orpo(chosen: Answers, rejected: Answers, settings: Settings) -> Tensor:
    """-m_c - beta log s(log odds_c - log odds_r), odds = exp m / (1 - exp m); [P].

    Hong et al. 2024, https://arxiv.org/abs/2403.07691, equations 4 to 7.
    """
    odds_P = chosen.mean - rejected.mean - (_log1mexp(chosen.mean) - _log1mexp(rejected.mean))
    return -chosen.mean - settings.beta * F.logsigmoid(odds_P)


def simpo(chosen: Answers, rejected: Answers, settings: Settings) -> Tensor:
    """-log s(beta (m_c - m_r) - margin); [P]. Meng et al. 2024, https://arxiv.org/abs/2405.14734, equation 6."""
    return -F.logsigmoid(settings.beta * (chosen.mean - rejected.mean) - settings.margin)


@dataclass(frozen=True)
class Loss:
    """One kind of loss.

    Attributes:
        of: loss of each pair, [P].
        gain: what `beta` times makes the reward of an answer, [P].
        beta: where the config has none, as in the paper.
        needs_reference: whether it compares with the model that training starts from.
    """

    of: Callable[[Answers, Answers, Settings], Tensor]
    gain: Callable[[Answers], Tensor]
    beta: float
    needs_reference: bool


LOSSES = {
    "dpo": Loss(dpo, lambda answers: answers.log_ratio, beta=0.1, needs_reference=True),
    "ipo": Loss(ipo, lambda answers: answers.log_ratio / answers.length, beta=0.1, needs_reference=True),
    "orpo": Loss(orpo, lambda answers: answers.mean, beta=0.1, needs_reference=False),
    "simpo": Loss(simpo, lambda answers: answers.mean, beta=2.0, needs_reference=False),
}


def settings_of(loss: str, *, beta: float | None, label_smoothing: float, margin: float | None) -> Settings:
    """The numbers of a loss, those that are not given as in its paper."""
    chosen = LOSSES[loss].beta if beta is None else beta
    return Settings(chosen, label_smoothing, chosen / 2 if margin is None else margin)


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x <= 0, exact near 0, too (Mächler 2012); a probability of 1 counts as the next smaller number."""
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    return torch.where(x > _LOG_HALF, (-torch.expm1(x)).log(), torch.log1p(-x.exp()))
