"""GELU of our own beside torch's in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN

from llmtune.training import gelu

NAMES = ["gelu_new", "gelu_fast", "gelu_pytorch_tanh"]


def installed(name: str, *, training: bool = True) -> nn.Module:
    model = nn.Sequential(copy.deepcopy(ACT2FN[name])).train(training)
    gelu.install(model)
    return model


def exact(x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope in float64."""
    x = x.detach().double().requires_grad_()
    out = F.gelu(x, approximate="tanh")
    return out.detach(), torch.autograd.grad(out.sum(), x)[0]


def values(dtype: torch.dtype) -> Tensor:
    """More than are computed at once, from where nothing to where everything passes, extremes included."""
    extremes = torch.tensor([-1e4, -30.0, -0.0, 0.0, 30.0, 1e4])
    return torch.cat([extremes, torch.linspace(-8, 8, gelu.AT_ONCE + 100)]).to(dtype)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float32, 1e-5)])
def test_value_and_slope(name, dtype, tolerance):
    x = values(dtype).requires_grad_()
    out = installed(name)(x)
    (slope,) = torch.autograd.grad(out.sum(), x)
    assert out.dtype == slope.dtype == dtype
    for found, expected in zip((out, slope), exact(x), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_the_gradient_is_the_slope_times_what_comes_back():
    x, grad = torch.randn(3, 5, 7).bfloat16().transpose(0, 2).requires_grad_(), torch.randn(7, 5, 3).bfloat16()
    installed("gelu_new")(x).backward(grad)
    torch.testing.assert_close(x.grad.double(), exact(x)[1] * grad.double(), rtol=0.02, atol=1e-3)


def test_where_nothing_is_learned_it_stays_what_it_was(monkeypatch):
    monkeypatch.setattr(gelu, "_Gelu", None)
    x = torch.randn(9).bfloat16()
    assert torch.equal(installed("gelu_new", training=False)(x), ACT2FN["gelu_new"](x))


def test_other_activations_are_left_alone():
    model = nn.Sequential(nn.GELU(), copy.deepcopy(ACT2FN["gelu"]))
    gelu.install(model)
    assert not any("forward" in vars(module) for module in model)
