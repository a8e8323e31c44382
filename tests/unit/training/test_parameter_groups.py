"""Groups of weights with their learning rates and decay."""

import pytest

from llmtune import tuning
from llmtune.config.sections.optimizer import AdamW
from llmtune.config.sections.tuning import FullTuning, LoraTuning
from llmtune.models import registry
from llmtune.training import optimizers, parameter_groups
from llmtune.tuning import places
from tests import tiny

FULL = FullTuning(type="full")
ADAMW = AdamW(type="adamw", lr=0.1, weight_decay=0.01, beta1=0.9, beta2=0.999, eps=1e-8)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "gpt2", "llama", "gpt_neox", "deberta-v2"])
@pytest.mark.parametrize("index", [0, 2])
def test_every_weight_has_a_place(name, index):
    model = tiny.model(name, tiny.tasks_of(name)[index])
    where = places.of(model)
    assert list(where) == ["embeddings", "layer 0", "layer 1", "head"]
    assert sorted(sum(where.values(), [])) == sorted(n for n, _ in model.named_parameters())
    assert any("emb" in n or "wte" in n for n in where["embeddings"])
    layers = [n for n, _ in model.named_parameters() if ".0." in n]
    assert set(layers) == set(where["layer 0"]) and len(layers) == len(where["layer 1"])


def test_layers_that_share_their_weights_are_one():
    assert list(places.of(tiny.model("albert", "classification"))) == ["embeddings", "layer 0", "head"]


def test_both_directions_of_an_lstm_share_a_layer(section):
    made = registry.build(section("model/lstm", num_layers=3, bidirectional=True), tiny.spec("classification"))
    where = places.of(made)
    assert list(where) == ["embeddings", "layer 0", "layer 1", "layer 2", "head"]
    assert {n.split(".")[1] for n in where["layer 1"]} == {"forward_layers", "backward_layers"}


def test_the_layers_of_an_mlp_are_numbered_one_by_one(section):
    facts = {"num_features": 2, "feature_mean": (0.0, 0.0), "feature_std": (1.0, 1.0)}
    made = registry.build(section("model/mlp", hidden_sizes=[4, 4]), tiny.spec("classification", **facts))
    assert list(places.of(made)) == ["layer 0", "layer 1", "head"]


def test_adapters_stand_by_themselves():
    opened = LoraTuning(type="lora", rank=2, alpha=4.0, dropout=0.0, target_modules=None)
    model = tuning.apply(tiny.model("bert", "classification"), opened)
    groups = parameter_groups.build(model, opened, weight_decay=0.1)
    assert [(g.name, g.weight_decay) for g in groups] == [("head", 0.1), ("head", 0.0), ("adapters", 0.1)]
    assert sum(len(g.params) for g in groups) == sum(p.requires_grad for p in model.parameters())


def test_vectors_do_not_decay():
    groups = parameter_groups.build(tiny.model("bert", "classification"), FULL, weight_decay=0.1)
    assert [g.name for g in groups] == [n for n in ("embeddings", "layer 0", "layer 1", "head") for _ in range(2)]
    assert all((p.ndim >= 2) == (g.weight_decay > 0) for g in groups for p in g.params)


def test_groups_that_are_treated_alike_are_one_to_the_optimizer():
    groups = parameter_groups.build(tiny.model("bert", "classification"), FULL, weight_decay=0.1)
    made = optimizers.build(groups, ADAMW)
    assert [(g["lr"], g["weight_decay"]) for g in made.param_groups] == [(0.1, 0.1), (0.1, 0.0)]
    held = [id(p) for g in made.param_groups for p in g["params"]]
    assert len(held) == len(set(held)) == sum(len(g.params) for g in groups)


def test_rates_fall_from_the_head_to_the_embeddings():
    scales = parameter_groups.lr_scales(["embeddings", "layer 0", "layer 1", "head"], decay=0.5)
    assert scales == {"embeddings": 0.125, "layer 0": 0.25, "layer 1": 0.5, "head": 1.0}
