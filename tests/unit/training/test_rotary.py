"""Rotary positions of our own beside transformers'."""

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llmtune.training import rotary
from llmtune.training.low_rank import LLAMA_LIKE
from tests import tiny

KINDS = sorted(LLAMA_LIKE)


@pytest.fixture(autouse=True)
def plain_again() -> Iterator[None]:
    """What is installed acts for all models of a kind."""
    yield
    for kind in KINDS:
        home = sys.modules.get(f"transformers.models.{kind}.modeling_{kind}")
        installed = getattr(home, rotary.NAME, None)
        if hasattr(installed, "args"):
            setattr(home, rotary.NAME, installed.args[0])


def gradients(model: nn.Module, *, bf16: bool = True) -> dict[str, Tensor]:
    model.zero_grad()
    batch = tiny.batch()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = model(**batch, labels=batch["input_ids"]).loss
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.fixture
def calls(monkeypatch) -> list[Tensor]:
    """What ours has turned."""
    seen: list[Tensor] = []
    turned = rotary._turned
    monkeypatch.setattr(rotary, "_turned", lambda x, *args, **how: seen.append(x) or turned(x, *args, **how))
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_learns_the_same(kind, calls):
    config = AutoConfig.for_model(kind, **tiny.ARCHITECTURES["llama"], num_key_value_heads=1, head_dim=8)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).train()
    expected, again = gradients(model), gradients(model)
    rotary.install(model)
    found = gradients(model)
    assert calls
    for name, value in expected.items():
        assert torch.equal(value, again[name])
        difference = (found[name] - value).double().norm() / value.double().norm().clamp(min=1e-9)
        assert difference < 0.02, name


@pytest.mark.parametrize("texts", [1, 2])
def test_the_numbers(texts):
    """Those of transformers' function in float64, rounded once; also where each text has places of its own."""
    torch.manual_seed(0)
    parts = [torch.randn(2, 5, heads, 8).bfloat16().transpose(1, 2).requires_grad_() for heads in (4, 2)]
    angles = torch.rand(texts, 5, 4).repeat(1, 1, 2) * 6
    weights = [torch.randn(part.shape).bfloat16() for part in parts]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = rotary._rotated(apply_rotary_pos_emb, *parts, angles.cos(), angles.sin())
    found = [*out, *torch.autograd.grad(out, parts, weights)]
    exact = [part.detach().double().requires_grad_() for part in parts]
    out = apply_rotary_pos_emb(*exact, angles.cos().double(), angles.sin().double())
    expected = [*out, *torch.autograd.grad(out, exact, [weight.double() for weight in weights])]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), theirs, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("how", ["float32", "evaluation"])
def test_elsewhere_it_is_what_it_was(how, calls):
    model = tiny.model("llama", "causal_lm").train()
    rotary.install(model)
    if how == "float32":
        gradients(model, bf16=False)
    else:
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            model.eval()(**tiny.batch())
    assert not calls


def test_twice_is_once():
    model = tiny.model("llama", "causal_lm")
    rotary.install(model)
    home = sys.modules["transformers.models.llama.modeling_llama"]
    first = home.apply_rotary_pos_emb
    rotary.install(model)
    assert home.apply_rotary_pos_emb is first


def test_other_models_are_left_alone():
    rotary.install(tiny.model("gpt2", "causal_lm"))
    rotary.install(nn.Linear(2, 2))
