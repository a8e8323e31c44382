"""BERT and GPT-2 by size, and the names of models."""

import sys

import pytest
import torch

from llmtune.errors import ConfigError, ModelError, ResourceError
from llmtune.models import pretrained, registry
from llmtune.models.location import locate
from tests import tiny

SIZES = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8), "medium": (8, 512, 8), "base": (12, 768, 12)}
FACTS = ("num_hidden_layers", "hidden_size", "num_attention_heads")


def test_the_sizes_are_those_of_the_table():
    assert {size: facts[:2] for size, facts in SIZES.items()} == pretrained.SIZES


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kind", "task"), [("bert", "masked_lm"), ("gpt", "causal_lm")])
def test_sizes(section, kind, task, size):
    with torch.device("meta"):
        model = registry.build(section(f"model/{kind}", size=size), tiny.spec(task, bos_token_id=5, eos_token_id=6))
    assert tuple(getattr(model.config, name) for name in FACTS) == SIZES[size]
    embedding = model.get_input_embeddings()
    assert (embedding.num_embeddings, embedding.embedding_dim) == (tiny.VOCAB_SIZE, SIZES[size][1])
    assert model.config.max_position_embeddings == tiny.MAX_LENGTH
    if kind == "gpt":
        assert (model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id) == (5, 6, tiny.PAD)
    else:
        assert model.config.intermediate_size == 4 * SIZES[size][1]


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_sizes_of_ones_own(section, kind):
    own = {"num_layers": 3, "hidden_size": 24, "num_heads": 4, "dropout": 0.25}
    model = registry.build(section(f"model/{kind}", **own), tiny.spec("classification"))
    assert tuple(getattr(model.config, name) for name in FACTS) == (3, 24, 4)
    dropouts = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert dropouts == {0.25} or (kind == "gpt" and dropouts == {0.25, 0.1})  # GPT-2 has one more in a summary head
    assert model.config.id2label == dict(enumerate(tiny.LABELS))


@pytest.mark.parametrize("kind", ["bert", "gpt"])
def test_new_weights_come_from_the_global_generator(section, kind):
    def weights(seed):
        torch.manual_seed(seed)
        return registry.build(section(f"model/{kind}", hidden_size=16), tiny.spec("classification")).state_dict()

    one, same, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_dropout_instead_of_what_the_weights_were_trained_with(section, tmp_path):
    directory = str(tiny.save(tiny.model("bert", "classification"), tmp_path))
    for dropout, expected in ((None, 0.1), (0.3, 0.3), (0.0, 0.0)):
        model = registry.build(section("model/bert", pretrained=directory, dropout=dropout), tiny.spec("classification"))
        assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {expected}


def test_a_width_that_the_heads_cannot_share(section):
    with pytest.raises(ConfigError, match="model.hidden_size: 20 cannot be shared among model.num_heads=3"):
        registry.build(section("model/bert", hidden_size=20, num_heads=3), tiny.spec("classification"))


def test_a_kernel_whose_package_is_missing(section, monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(ResourceError, match="model.attention=flash_attention_2") as caught:
        registry.build(section("model/bert", hidden_size=16, attention="flash_attention_2"), tiny.spec("classification"))
    assert "model.attention=auto" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./models/bert", "there is no directory ./models/bert"),
        ("/nowhere/bert", "there is no directory /nowhere/bert"),
        ("a/b/c", "there is no directory a/b/c"),
        ("x" * 300, "there is no directory xxx"),
        ("a\0b", "there is no directory"),
        ("package:nobody/model", "the package 'nobody' is not installed"),
        ("bert-base-uncased", "was not downloaded before"),
        ("google/bert", "no directory google/bert, and a model of that name was not downloaded before"),
    ],
)
def test_a_name_of_nothing(name, words, monkeypatch):
    """Told at once: the network is not asked."""
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda host, *rest, **more: asked.append(host))
    with pytest.raises(ModelError, match=words) as caught:
        locate(name)
    assert caught.value.where == name and caught.value.remedy and caught.value.exit_code == 4
    assert not asked


def test_the_name_of_a_directory(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("org/model") == tmp_path / "org" / "model"
