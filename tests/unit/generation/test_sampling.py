"""Who may be drawn, and how often: as transformers' warpers say."""

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmtune.config.sections.generation import Sampling
from llmtune.generation.sampling import FEW, candidates, draw, penalized

NEUTRAL = {"top_k": None, "top_p": 1.0, "min_p": 0.0}
WAYS = [
    {},
    {"temperature": 0.3},
    {"top_k": 5},
    {"top_k": 5000},
    {"top_p": 0.5},
    {"top_p": 0.01},
    {"top_p": 0.999, "temperature": 3.0},  # more tokens than are looked at first
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"min_p": 1e-4, "temperature": 5.0},
    {"top_k": 20, "top_p": 0.8, "min_p": 0.05, "temperature": 1.7},
]


def how(**given) -> Sampling:
    rest = {"max_new_tokens": 1, "repetition_penalty": 1.0, "seed": 0, "stop": ()}
    return Sampling(**{**rest, **NEUTRAL, "temperature": 1.0, **given})


def shares_by_transformers(logits_BV: torch.Tensor, given: Sampling) -> torch.Tensor:
    warpers = [TemperatureLogitsWarper(given.temperature)]
    warpers += [TopKLogitsWarper(given.top_k)] if given.top_k else []
    warpers += [TopPLogitsWarper(given.top_p)] if given.top_p < 1 else []
    warpers += [MinPLogitsWarper(given.min_p)] if given.min_p else []
    for warper in warpers:
        logits_BV = warper(None, logits_BV)
    return logits_BV.softmax(-1)


@pytest.mark.parametrize("given", WAYS, ids=str)
@pytest.mark.parametrize("size", [7, 3 * FEW])
def test_shares_are_those_of_transformers(given: dict, size: int):
    logits_BV = 4 * torch.randn(6, size, generator=torch.Generator().manual_seed(0))
    shares_BK, ids_BK = candidates(logits_BV, how(**given))
    assert (ids_BK.diff(dim=-1) > 0).all()
    found_BV = torch.zeros_like(logits_BV).scatter_(-1, ids_BK, shares_BK / shares_BK.sum(-1, keepdim=True))
    expected_BV = shares_by_transformers(logits_BV, how(**given))
    torch.testing.assert_close(found_BV, expected_BV, atol=1e-6, rtol=1e-4)
    assert torch.equal(found_BV > 0, expected_BV > 0)


def test_draws_are_as_frequent_as_their_shares():
    logits_1V = torch.tensor([[2.0, 0.0, 1.0, -1.0, -30.0]])
    uniform_N = (np.arange(10_000) + 0.5) / 10_000
    tokens_N = draw(logits_1V.expand(len(uniform_N), -1), uniform_N, how())
    counts_V = torch.bincount(tokens_N, minlength=5) / len(uniform_N)
    torch.testing.assert_close(counts_V, logits_1V[0].softmax(-1), atol=2e-4, rtol=0)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("given", [{}, {"top_p": 0.9}, {"top_k": 2}, {"min_p": 0.5}], ids=str)
def test_the_ends_of_the_scale_draw_what_may_be_drawn(uniform: float, given: dict):
    logits_BV = torch.tensor([[-torch.inf, 3.0, 2.9, -50.0, -torch.inf]] * 2)
    tokens = draw(logits_BV, np.full(2, uniform), how(**given)).tolist()
    assert set(tokens) <= {1, 2}


def test_the_penalty_is_that_of_transformers():
    logits_BV = torch.randn(3, 11, generator=torch.Generator().manual_seed(1))
    tokens = [[1, 1, 4], [0, 9, 10], [5, 6, 5]]
    expected_BV = RepetitionPenaltyLogitsProcessor(1.4)(torch.tensor(tokens), logits_BV.clone())
    assert torch.equal(penalized(logits_BV, tokens, 1.4), expected_BV)
