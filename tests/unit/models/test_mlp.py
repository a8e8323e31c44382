"""The MLP: scales that travel with it, and its way to disk and back."""

import pytest
import torch

from llmtune.errors import ModelError
from llmtune.models import registry
from tests import tiny

ROWS = {
    "num_features": 2,
    "vocab_size": 0,
    "pad_token_id": None,
    "max_length": 0,
    "feature_mean": (5.0, -1.0),
    "feature_std": (2.0, 0.0),
}


@pytest.fixture
def build(section):
    def make(task="regression", **changes):
        torch.manual_seed(0)
        return registry.build(section("model/mlp", hidden_sizes=[4], **changes), tiny.spec(task, **ROWS, target_std=3.0)).eval()

    return make


def test_scaling_lies_inside_the_model(build):
    """In what the user gives and gets, there are only the units of the data; a constant column is shifted alone."""
    features_BF = torch.tensor([[5.0, -1.0], [9.0, 0.0]])
    scaled, plain = build(), build(standardize=False)
    with torch.no_grad():
        inner_BF = torch.tensor([[0.0, 0.0], [2.0, 1.0]])
        assert torch.allclose(scaled(features_BF).logits, plain(inner_BF).logits * 3.0 + 2.5)
    assert (plain.config.target_mean, plain.config.target_std) == (0.0, 1.0)
    assert build("classification").config.target_std == 1.0  # class logits have no unit


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_to_disk_and_back(build, tmp_path, task):
    model = build(task)
    model.save_pretrained(tmp_path)
    again, features_BF = registry.load(tmp_path), torch.randn(6, 2)
    with torch.no_grad():
        assert torch.equal(again(features_BF).logits, model(features_BF).logits)
    assert registry.adapt(again, tiny.spec(task, **ROWS)) is again


def test_a_new_head_keeps_body_and_scales(build):
    model = build("regression")
    body = {name: tensor.clone() for name, tensor in model.body.state_dict().items()}
    adapted = registry.adapt(model, tiny.spec("classification", **{**ROWS, "feature_mean": (0.0, 0.0)}))
    assert all(torch.equal(tensor, body[name]) for name, tensor in adapted.body.state_dict().items())
    assert adapted.body.mean_F.tolist() == [5.0, -1.0] and adapted.body.std_F.tolist() == [2.0, 1.0]
    assert (adapted.config.target_mean, adapted.config.target_std) == (0.0, 1.0)
    assert adapted(torch.zeros(1, 2)).logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (tiny.spec("regression", **{**ROWS, "num_features": 3}), "reads 2 numeric columns, the data has 3"),
        (tiny.spec("regression"), "reads numeric columns, the data has text"),
    ],
)
def test_data_of_another_kind(build, wanted, words):
    with pytest.raises(ModelError, match=words) as caught:
        registry.adapt(build(), wanted)
    assert caught.value.remedy


def test_numbers_for_a_model_of_texts(section):
    with pytest.raises(ModelError, match="the model reads text, the data has 2 numeric columns"):
        registry.adapt(registry.build(section("model/lstm"), tiny.spec("regression")), tiny.spec("regression", **ROWS))
