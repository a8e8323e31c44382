"""Which weights learn: all, those of the head, or low-rank updates; and the plain model afterwards."""

import copy
import sys
import warnings

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from llmtune import tuning
from llmtune.config.sections.tuning import FullTuning, HeadTuning, LoraTuning
from llmtune.errors import ConfigError, ResourceError
from llmtune.models import registry
from tests import tiny

HEAD, FULL = HeadTuning(type="head"), FullTuning(type="full")


def lora(*target_modules: str) -> LoraTuning:
    return LoraTuning(type="lora", rank=2, alpha=4.0, dropout=0.0, target_modules=target_modules or None)


def learned(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def stepped(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights as they were before one step of plain gradient descent."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(**tiny.batch()).logits.square().sum().backward()
    torch.optim.SGD(learned(model).values(), lr=0.1).step()
    return before


def of_layers(*layers: str) -> set[str]:
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}


IN_MASKED_LM = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm")
HEADS = {
    ("bert", "classification"): of_layers("classifier"),
    ("roberta", "classification"): of_layers("classifier.dense", "classifier.out_proj"),
    ("distilbert", "regression"): of_layers("pre_classifier", "classifier"),
    ("gpt2", "classification"): {"score.weight"},
    ("llama", "causal_lm"): {"lm_head.weight"},
    ("bert", "masked_lm"): {"cls.predictions.bias", *of_layers(*IN_MASKED_LM)},
}


@pytest.mark.parametrize(("name", "task"), HEADS)
def test_the_head_alone(name, task):
    model = tuning.apply(tiny.model(name, task), HEAD)
    assert set(learned(model)) == HEADS[name, task]
    before = stepped(model)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == HEADS[name, task]


@pytest.mark.parametrize("own", ["lstm", "mlp"])
def test_the_head_of_our_own_models(section, own):
    changes = {"num_features": 2, "feature_mean": (0.0, 0.0), "feature_std": (1.0, 1.0)} if own == "mlp" else {}
    model = tuning.apply(registry.build(section(f"model/{own}"), tiny.spec("classification", **changes)), HEAD)
    assert set(learned(model)) == {"classifier.weight", "classifier.bias"}


def test_everything():
    model = tuning.apply(tiny.model("bert", "classification"), FULL)
    assert len(learned(model)) == len(list(model.parameters()))


def test_a_head_that_is_the_embedding():
    with pytest.raises(ConfigError, match="shares its weights with the embedding: use tuning=full or lora"):
        tuning.apply(tiny.model("gpt2", "causal_lm"), HEAD)


@pytest.mark.parametrize("opened", [HEAD, lora()], ids=["head", "lora"])
@pytest.mark.parametrize(("form", "task"), [("masked_lm", "classification"), ("classification", "masked_lm")])
def test_all_that_is_random_learns(opened, form, task):
    """What stays as it was must be there again when a checkpoint of the learned weights is read: none of it was drawn."""
    frozen = []
    for seed in (1, 2):
        source = tiny.model("bert", form)
        torch.manual_seed(seed)
        model = tuning.apply(registry.adapt(source, tiny.spec(task)), opened)
        frozen.append({name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad})
    one, other = frozen
    assert one and one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("opened", [HEAD, lora()], ids=["head", "lora"])
def test_what_was_just_drawn_learns(opened, tmp_path):
    """A pooler that no one has trained would stay random for ever: it lies in the body, but is as new as the head."""
    adapted = registry.adapt(tiny.model("bert", "masked_lm"), tiny.spec("classification"))
    model = tuning.apply(adapted, opened)
    names = {name.removeprefix("base_model.model.") for name in learned(model)}
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} <= names
    assert not any("pooler" in name and "lora" in name for name in names)
    if opened is HEAD:
        assert names == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}


def test_a_new_head_of_a_language_model_learns_with_lora():
    model = tuning.apply(registry.adapt(tiny.model("llama", "body"), tiny.spec("causal_lm")), lora())
    assert [name for name in learned(model) if "lora" not in name] == ["base_model.model.lm_head.weight"]


LORA = [(name, task) for name in ("bert", "roberta", "gpt2", "llama", "distilbert", "electra") for task in tiny.tasks_of(name)]


@pytest.mark.parametrize(("name", "task"), LORA)
def test_low_rank_updates_of_every_linear_layer_but_the_head(name, task):
    plain = tiny.model(name, task)
    kinds = (torch.nn.Linear, Conv1D)
    inner = {f"{plain.base_model_prefix}.{n}" for n, m in plain.base_model.named_modules() if isinstance(m, kinds)}
    head = {n for n, _ in plain.named_parameters() if not n.startswith(f"{plain.base_model_prefix}.")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tuning.apply(copy.deepcopy(plain), lora())
    names = {n.removeprefix("base_model.model.") for n in learned(model)}
    assert {n.partition(".lora_")[0] for n in names if ".lora_" in n} == inner
    assert {n for n in names if ".lora_" not in n} == (head if task in ("classification", "regression") else set())

    batch = tiny.batch()
    with torch.no_grad():  # the second factor is zero at first
        assert torch.allclose(model.eval()(**batch).logits, plain(**batch).logits, rtol=0, atol=1e-6)
    before = stepped(model)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed <= set(learned(model)) and any(".lora_B." in name for name in changed)
    assert task.endswith("lm") or all(f"base_model.model.{name}" in changed for name in head)


def test_the_number_of_learned_weights():
    model = tuning.apply(tiny.model("bert", "classification"), lora("query", "value"))
    pairs = 2 * 2  # layers, layers of each
    assert sum(p.numel() for p in learned(model).values()) == pairs * 2 * (16 * 2) + (16 * 3 + 3)


@pytest.mark.parametrize("targets", [("query",), ("attention.self.query",), ("encoder.layer.1.attention.self.query",)])
def test_named_layers(targets):
    model = tuning.apply(tiny.model("bert", "masked_lm"), lora(*targets))
    layers = {name.partition(".lora_")[0].removeprefix("base_model.model.bert.") for name in learned(model)}
    assert layers == {f"encoder.layer.{i}.attention.self.query" for i in range(2) if "layer.1" not in targets[0] or i == 1}


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_layer_that_is_not_there(name):
    present = {"bert": "dense, key, query, value", "gpt2": "c_attn, c_fc, c_proj"}[name]
    with pytest.raises(ConfigError, match=f"^tuning.target_modules: there is no linear layer 'q_proj'; there are: {present}$"):
        tuning.apply(tiny.model(name, "classification"), lora("q_proj"))


def test_lora_needs_linear_layers(section):
    with pytest.raises(ConfigError, match="the model has no linear layers to update"):
        tuning.apply(registry.build(section("model/lstm"), tiny.spec("classification")), lora())


def test_lora_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ResourceError, match="tuning=lora needs the package peft") as caught:
        tuning.apply(tiny.model("bert", "classification"), lora())
    assert caught.value.remedy == "pip install 'llmtune[lora]'" and caught.value.exit_code == 5


@pytest.mark.parametrize("name", ["bert", "gpt2", "distilbert"])
@pytest.mark.parametrize("opened", [FULL, HEAD, lora()], ids=["full", "head", "lora"])
def test_the_plain_model_is_open_again(name, opened):
    """Else a full fine-tuning of what LoRA gave would train the head alone and say nothing of it."""
    model = tiny.model(name, "classification")
    names = set(learned(model))
    merged = tuning.merged(tuning.apply(model, opened))
    assert set(learned(tuning.apply(merged, FULL))) == names
    assert {name for name, _ in merged.named_parameters()} == {
        name for name, _ in tiny.model(name, "classification").named_parameters()
    }
