"""Layers left out in training: which, how often, and that evaluation and saving know nothing of it."""

import pytest
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from llmtune.errors import ModelError
from llmtune.models import first_token, layer_drop
from tests import tiny

WITH_LAYERS = ("bert", "roberta", "distilbert", "electra", "gpt2", "gpt_neox", "llama", "qwen2", "opt")


def calls(model: nn.Module) -> list[int]:
    """Filled with the numbers of the layers that are computed."""
    seen: list[int] = []
    for number, layer in enumerate(m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)):
        inner = next(m for m in layer.modules() if isinstance(m, nn.Linear | nn.LayerNorm) or "RMSNorm" in type(m).__name__)
        inner.register_forward_hook(lambda *_, number=number: seen.append(number))
    return seen


def installed(name: str, form: str, *, probability: float = 0.5, num_layers: int = 4) -> nn.Module:
    key = {"distilbert": "n_layers", "gpt2": "n_layer"}.get(name, "num_hidden_layers")
    made = tiny.model(name, form, **{key: num_layers})
    layer_drop.install(made, probability=probability)
    return made


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_each_pass_draws_anew_and_has_a_layer_at_least(name: str):
    model = installed(name, "classification", probability=0.7).train()
    seen, passes = calls(model), []
    for seed in range(40):
        seen.clear()
        torch.manual_seed(seed)
        out = model(**tiny.batch()).logits
        passes.append(tuple(sorted(set(seen))))
    assert out.isfinite().all() and all(passes) and len(set(passes)) > 8
    assert {layer for layers in passes for layer in layers} == {0, 1, 2, 3}


def test_the_share_is_as_asked_and_the_generator_decides():
    model = installed("bert", "classification", probability=0.2, num_layers=5).train()
    seen, numbers = calls(model), []
    for seed in [*range(300), 3]:
        seen.clear()
        torch.manual_seed(seed)
        model(**tiny.batch(1, 2))
        numbers.append(tuple(seen))
    assert 0.77 < sum(len(set(n)) for n in numbers[:-1]) / 1500 < 0.83
    assert numbers[-1] == numbers[3]


@pytest.mark.parametrize("name", WITH_LAYERS)
def test_evaluation_has_all_layers(name: str):
    plain = tiny.model(name, "classification")
    model = installed(name, "classification", probability=0.9, num_layers=2).eval()
    batch = tiny.batch()
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, plain(**batch).logits)


def test_what_is_left_is_the_model_without_those_layers():
    model = installed("llama", "causal_lm").train()
    torch.manual_seed(5)
    kept = [number for number, left in enumerate(left_out(5)) if not left]
    assert 0 < len(kept) < 4
    out = model(**tiny.batch()).logits
    plain = tiny.model("llama", "causal_lm", num_hidden_layers=4).train()
    plain.model.layers = nn.ModuleList([plain.model.layers[number] for number in kept])
    assert torch.equal(out, plain(**tiny.batch()).logits)


def left_out(seed: int) -> list[bool]:
    torch.manual_seed(seed)
    draws = torch.rand(4)
    left = draws < 0.5
    left[draws.argmax()] = False
    torch.manual_seed(seed)
    return left.tolist()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_activations_that_are_computed_twice_change_nothing(name: str):
    gradients = []
    for twice in (False, True):
        model = installed(name, "classification", probability=0.9).train()
        if twice:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        torch.manual_seed(2)
        model(**tiny.batch()).logits.sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert any(g is None for g in gradients[0].values()), "no layer was left out"
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert (gradient is None and other is None) or torch.equal(gradient, other), name


def test_a_last_layer_for_the_first_token_alone_may_be_left_out():
    made = tiny.model("bert", "classification")
    first_token.install(made)
    layer_drop.install(made, probability=0.6)
    for seed in range(10):
        torch.manual_seed(seed)
        assert made.train()(**tiny.batch()).logits.shape == (3, 3)


@pytest.mark.parametrize("name", ["albert", "mpnet", "deberta-v2"])
def test_other_kinds_of_layers_are_refused(name: str):
    with pytest.raises(ModelError, match="cannot be left out"):
        layer_drop.install(tiny.model(name, "classification"), probability=0.1)
