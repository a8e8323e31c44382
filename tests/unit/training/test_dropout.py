"""Dropout on the CPU: the distribution, the gradient, the key; and that torch's and transformers' own modules use it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmtune.training import dropout
from tests import tiny

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


@pytest.fixture(autouse=True)
def installed():
    dropout.install()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p: float, dtype: torch.dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 401, dtype=dtype)
    y = F.dropout(x, p, training=True)
    assert y.dtype == dtype and (y == 0).double().mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / x.numel()) ** 0.5)
    assert y[y != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-2 if dtype == torch.bfloat16 else 1e-4)


def test_elements_are_independent():
    """Also those that share a 64-bit draw, and the same ones in neighbouring draws."""
    torch.manual_seed(0)
    kept = (F.dropout(torch.ones(400_000), 0.3, training=True) != 0).double() - 0.7
    for distance in (1, 2, 3, 4, 8):
        correlation = (kept[distance:] * kept[:-distance]).mean() / kept.square().mean()
        assert abs(correlation.item()) < 4 / 400_000**0.5
    by_slot = kept.view(-1, 4).mean(0)
    assert by_slot.abs().max().item() < 4 * (0.21 / 100_000) ** 0.5


def test_the_gradient_passes_where_the_value_does():
    x = torch.randn(30, 7, dtype=torch.float64, requires_grad=True)
    y = F.dropout(x, 0.4, training=True)
    y.sum().backward()
    assert (y == 0).any() and torch.allclose(x.grad, (y / x).detach(), atol=1e-12)


def test_the_seed_decides():
    x = torch.ones(1000)
    torch.manual_seed(1)
    first = F.dropout(x, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(first, F.dropout(x, 0.5, training=True))
    torch.manual_seed(2)
    assert not torch.equal(first, F.dropout(x, 0.5, training=True))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0, 4), (2, 3, 5)])
def test_any_shape(shape: tuple[int, ...]):
    x = torch.ones(shape, requires_grad=True)
    assert F.dropout(x, 0.5, training=True).shape == shape
    assert torch.equal(F.dropout(x, 0.5, training=False), x) and torch.equal(F.dropout(x, 0.0, training=True), x)
    assert F.dropout(x, 1.0, training=True).abs().sum() == 0


def test_views_that_are_not_contiguous():
    x = torch.ones(50, 40).t()
    y = F.dropout(x, 0.5, training=True)
    assert y.shape == x.shape and 0.4 < (y == 0).float().mean() < 0.6


def uses_of(call) -> int:
    """How many of our masks a computation draws."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    assert not any(event.key == "aten::bernoulli_" for event in profile.key_averages())
    return sum(event.count for event in profile.key_averages() if event.key == "aten::random_")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers_use_it_in_attention_too(attention: str):
    model = tiny.model("bert", "classification", attn_implementation=attention).train()
    batch = tiny.batch()
    # Embeddings, classifier head, and in each of two layers the attention and both outputs.
    assert uses_of(lambda: model(**batch)) == 2 + 2 * 3


def test_modules_of_torch_use_it():
    assert uses_of(lambda: nn.Dropout(0.2)(torch.ones(8))) == 1
