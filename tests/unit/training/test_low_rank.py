"""Low-rank updates of our own beside peft's, frozen weights in bfloat16 beside autocast's copies, our norm beside a Llama's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from llmtune import tuning
from llmtune.config.sections.tuning import HeadTuning, LoraTuning
from llmtune.tasks.vocabulary_loss import summed_loss
from llmtune.training import dropout, low_rank, norm
from llmtune.training.lowered import Lowered
from tests import tiny


def lora(p: float = 0.0, *targets: str) -> LoraTuning:
    return LoraTuning(type="lora", rank=3, alpha=7.5, dropout=p, target_modules=targets or None)


def opened(name: str, form: str = "causal_lm", section: LoraTuning | HeadTuning | None = None) -> nn.Module:
    """With updates that are not zero."""
    model = tuning.apply(tiny.model(name, form), section or lora()).train()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0, 0.2)
    return model


def gradients(model: nn.Module, *, bf16: bool = False) -> dict[str, Tensor]:
    """Loss and gradients, by name."""
    model.zero_grad()
    batch = tiny.batch()
    torch.manual_seed(5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        if hasattr(model.config, "id2label") and model.config.problem_type == "regression":
            loss = model(**batch).logits.float().square().sum()
        else:
            loss = summed_loss(model, batch, batch["input_ids"])
    loss.backward()
    return {"loss": loss.detach()} | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def size(values: dict[str, Tensor]) -> float:
    return sum(value.double().square().sum().item() for value in values.values()) ** 0.5


def off(values: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert values.keys() == expected.keys()
    return size({name: value - expected[name] for name, value in values.items()})


def test_the_gradients_of_a_layer():
    """By finite differences, in float64; with dropout and bias."""
    torch.manual_seed(0)
    x, up = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    a, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 4), (5, 2)))
    keep = (torch.rand(2, 3, 4) < 0.5).double()
    for kept in (None, keep):
        assert torch.autograd.gradcheck(lambda x, a, b, k=kept: low_rank._Layer.apply(x, k, weight, bias, a, b, 1.7), (x, a, b))
        assert torch.autograd.gradcheck(
            lambda x, up, a, b, k=kept: low_rank._GatedLayer.apply(x, up, k, weight, None, a, b, 1.7), (x, up, a, b)
        )


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_loss_and_gradients_are_peft_s(name):
    theirs = opened(name, "regression")
    ours = copy.deepcopy(theirs)
    low_rank.install(ours)
    expected, found = gradients(theirs), gradients(ours)
    assert off(found, expected) <= 2e-6 * size(expected)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj"), ("gate_proj", "up_proj")])
def test_language_models(name, targets):
    theirs = opened(name, section=lora(0.0, *targets))
    ours = copy.deepcopy(theirs)
    low_rank.install(ours)
    expected, found, exact = gradients(theirs, bf16=True), gradients(ours, bf16=True), gradients(theirs)
    assert off(gradients(ours), exact) <= 2e-6 * size(exact)
    assert off(found, exact) <= 1.5 * off(expected, exact)  # in bfloat16 about as near to it


def test_dropout_is_peft_s(monkeypatch):
    """The same numbers are drawn, in the same order, where the MLP is not computed as one."""
    dropout.install()
    monkeypatch.setattr(low_rank, "LLAMA_LIKE", set())
    theirs = opened("llama", section=lora(0.3))
    ours = copy.deepcopy(theirs)
    low_rank.install(ours)
    expected, found = gradients(theirs), gradients(ours)
    assert off(found, expected) <= 2e-6 * size(expected)


def test_a_repeated_step_is_the_same_to_the_bit():
    model = opened("llama", section=lora(0.3))
    low_rank.install(model)
    first, second = gradients(model, bf16=True), gradients(model, bf16=True)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_activation_checkpointing_changes_nothing():
    model = opened("llama", section=lora(0.3))
    low_rank.install(model)
    plain = gradients(model, bf16=True)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again = gradients(model, bf16=True)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_outside_of_training_the_layers_are_peft_s():
    model = opened("llama").eval()
    batch = tiny.batch()
    with torch.no_grad():
        before = model(**batch).logits
        low_rank.install(model)
        assert torch.equal(model(**batch).logits, before)
        merged = tuning.merged(model)
        assert torch.allclose(merged(**batch).logits, before, atol=1e-6)


def test_what_is_not_plain_stays_peft_s():
    from peft import LoraConfig, get_peft_model

    for options in ({"use_dora": True}, {"lora_bias": True}):
        model = get_peft_model(tiny.model("llama", "causal_lm"), LoraConfig(r=2, target_modules=["q_proj"], **options))
        low_rank.install(model)
        assert not any("forward" in vars(module) for module in model.modules())


def test_the_norm_is_a_llama_s():
    torch.manual_seed(0)
    theirs = tiny.model("llama", "causal_lm").model.norm.train()
    theirs.weight.data.normal_()
    ours = copy.deepcopy(theirs)
    holder = nn.ModuleList([ours])
    norm.install(holder)
    x = torch.randn(2, 3, 16, requires_grad=True)
    results = []
    for module in (theirs, ours):
        out = module(x)
        results.append([out, *torch.autograd.grad(out.pow(3).sum(), [x, module.weight])])
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ours(x).dtype == torch.bfloat16 and torch.equal(ours(x), ours(x).float().bfloat16())


class TestLowered:
    @pytest.mark.parametrize("name", tiny.ARCHITECTURES)
    @pytest.mark.parametrize("tuned", ["lora", "head", "ours"])
    def test_training_is_the_same_to_the_bit(self, name, tuned):
        model = opened(name, "regression", HeadTuning(type="head") if tuned == "head" else lora())
        if tuned == "ours":
            low_rank.install(model)
        expected = gradients(model, bf16=True)
        Lowered(model, keep_in=None)
        found = gradients(model, bf16=True)
        assert expected.keys() == found.keys() and all(torch.equal(found[n], expected[n]) for n in expected)

    @pytest.mark.parametrize("name", ["bert", "llama", "qwen2"])
    def test_the_weights_come_back_as_they_were(self, name, tmp_path):
        model = opened(name, "masked_lm" if name == "bert" else "causal_lm")
        batch = tiny.batch()
        weights = {n: p.detach().clone() for n, p in model.named_parameters(remove_duplicate=False)}
        with torch.no_grad():
            logits = model.eval()(**batch).logits
        lowered = Lowered(model, keep_in=tmp_path)
        frozen = [m.weight for m in model.modules() if type(m) is nn.Linear and not m.weight.requires_grad]
        assert len(frozen) > 4 and all(weight.dtype == torch.bfloat16 for weight in frozen)
        assert model.get_input_embeddings().weight.dtype == torch.float32
        for _ in range(2):
            with lowered.whole(), torch.no_grad():
                now = dict(model.named_parameters(remove_duplicate=False))
                assert now.keys() == weights.keys() and all(torch.equal(now[n], weights[n]) for n in weights)
                assert torch.equal(model(**batch).logits, logits)
            now = [m.weight for m in model.modules() if type(m) is nn.Linear and not m.weight.requires_grad]
            assert all(a is b for a, b in zip(now, frozen, strict=True))
        assert not list(tmp_path.iterdir())

    def test_what_learns_stays_float32(self):
        model = opened("llama")
        Lowered(model, keep_in=None)
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
