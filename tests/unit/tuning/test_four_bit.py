"""Weights in 4 bits: the same function as their rounded floats, and as peft has it on bitsandbytes' own layers."""

import copy
import sys

import bitsandbytes
import peft
import pytest
import torch
from torch import nn

from llmtune import tuning
from llmtune.config.sections.tuning import QloraTuning
from llmtune.errors import ModelError, ResourceError
from llmtune.tuning import four_bit, frozen
from tests import tiny

MODELS = [("bert", "classification"), ("llama", "causal_lm")]


def qlora(**changes) -> QloraTuning:
    usual = {"rank": 3, "alpha": 6.0, "dropout": 0.0, "target_modules": None, "quant_type": "nf4", "double_quant": True}
    return QloraTuning(type="qlora", **{**usual, **changes})


def opened(model: nn.Module, how: QloraTuning, *, packs: bool) -> nn.Module:
    """With updates that do something, the same each time."""
    made = tuning.apply(copy.deepcopy(model), how, packs=packs).eval()
    draws = torch.Generator().manual_seed(0)
    for _, parameter in sorted(learned(made).items()):
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=draws))
    return made


def learned(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    logits = model(**batch).logits
    logits.square().mean().backward()
    return logits.detach(), {name: parameter.grad for name, parameter in learned(model).items()}


@pytest.mark.parametrize(("name", "task"), MODELS)
@pytest.mark.parametrize(
    "changes", [{}, {"double_quant": False}, {"quant_type": "fp4"}, {"target_modules": ("query", "q_proj")}]
)
def test_packed_or_rounded(name: str, task: str, changes: dict):
    wanted = changes.get("target_modules")
    changes = {**changes, "target_modules": wanted and (wanted[name == "llama"],)}
    plain, batch = tiny.model(name, task), tiny.batch()
    packed, rounded = (opened(plain, qlora(**changes), packs=packs) for packs in (True, False))
    assert frozen.digest(packed) == frozen.digest(rounded)
    logits, grads = gradients(packed, batch)
    expected, theirs = gradients(rounded, batch)
    assert torch.equal(logits, expected) and grads.keys() == theirs.keys()
    assert all(torch.equal(grads[name], theirs[name]) for name in grads)
    merged = tuning.merged(rounded)
    assert torch.allclose(merged(**batch).logits, logits, rtol=0, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(
            tuning.merged(tuning.apply(plain, qlora()))(**batch).logits, tiny.model(name, task)(**batch).logits
        )


@pytest.mark.parametrize(("name", "task"), MODELS)
def test_as_peft_has_it(name: str, task: str):
    """Loss and gradients of peft's own layers around those of bitsandbytes."""
    plain, batch = tiny.model(name, task), tiny.batch()
    ours = opened(plain, qlora(), packs=True)
    theirs = copy.deepcopy(plain)
    body, names = set(theirs.base_model.modules()), [n for n, m in theirs.named_modules() if isinstance(m, nn.Linear)]
    names = [n for n in names if theirs.get_submodule(n) in body]
    for layer_name in names:
        layer, (parent, _, child) = theirs.get_submodule(layer_name), layer_name.rpartition(".")
        has_bias = layer.bias is not None
        made = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, bias=has_bias, quant_type="nf4")
        made.load_state_dict(layer.state_dict())
        setattr(theirs.get_submodule(parent), child, made.to("cpu"))
    theirs.is_loaded_in_4bit = True
    config = peft.LoraConfig(r=3, lora_alpha=6, lora_dropout=0.0, target_modules=names)
    theirs = peft.get_peft_model(theirs, config).train()
    assert any(isinstance(module, peft.tuners.lora.bnb.Linear4bit) for module in theirs.modules())
    for key, parameter in theirs.named_parameters():
        if key in learned(ours):
            parameter.requires_grad_(True).data.copy_(learned(ours)[key])
    for module in [*ours.modules(), *theirs.modules()]:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    logits, grads = gradients(ours.train(), batch)
    expected, others = gradients(theirs, batch)
    assert torch.allclose(logits, expected, rtol=0, atol=1e-6) and grads.keys() == others.keys()
    for key, grad in grads.items():
        assert torch.allclose(grad, others[key], rtol=0, atol=1e-6), key


def test_what_is_kept():
    """Half a byte a weight, and nothing else of it for the backward pass."""
    plain = tiny.model("llama", "causal_lm")
    model = opened(plain, qlora(), packs=True)
    layers = [module for module in model.modules() if isinstance(module, four_bit.FourBitLinear)]
    assert len(layers) == 14
    for layer in layers:
        assert layer.weight.dtype == torch.uint8 and 2 * layer.weight.numel() == layer.in_features * layer.out_features
        assert four_bit.num_weights(layer.weight) == layer.in_features * layer.out_features
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        layers[0](torch.randn(3, layers[0].in_features, requires_grad=True))
    assert kept and all(tensor.dtype == torch.uint8 for tensor in kept)


def test_autocast():
    layer = nn.Linear(64, 32)
    held = four_bit.FourBitLinear(layer, qlora())
    x = torch.randn(5, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = held(x)
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), held(x), rtol=0, atol=0.05)
    found.float().sum().backward()
    assert x.grad.dtype == torch.float32


def test_layers_that_are_not_linear():
    with pytest.raises(ModelError, match="layers of gpt2 are none that bitsandbytes holds"):
        tuning.apply(tiny.model("gpt2", "causal_lm"), qlora(), packs=True)


def test_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ResourceError, match="needs the package bitsandbytes") as refused:
        tuning.apply(tiny.model("bert", "classification"), qlora())
    assert "llmtune[qlora]" in refused.value.remedy


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    """Weights are put into 4 bits on the CPU: what a GPU has is the same."""
    plain, batch = tiny.model("llama", "causal_lm"), tiny.batch()
    logits, grads = gradients(opened(plain, qlora(), packs=True), batch)
    there = opened(plain, qlora(), packs=True).cuda()
    found, theirs = gradients(there, {name: tensor.cuda() for name, tensor in batch.items()})
    assert torch.allclose(found.cpu(), logits, rtol=0, atol=1e-5)
    assert all(torch.allclose(theirs[name].cpu(), grad, rtol=0, atol=1e-5) for name, grad in grads.items())
