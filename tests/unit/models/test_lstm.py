"""Our LSTM as a transformers model: its first weights, its dropout, and its way to disk and back."""

import pytest
import torch
from torch import nn

from llmtune.models import heads, registry
from tests import tiny


@pytest.fixture
def build(section):
    def make(task="classification", *, seed=0, **changes):
        torch.manual_seed(seed)
        sizes = {"embedding_size": 6, "hidden_size": 5, "dropout": 0.0}
        return registry.build(section("model/lstm", **{**sizes, **changes}), tiny.spec(task))

    return make


def test_first_weights(build):
    model = build(num_layers=2)
    layers = [*model.encoder.forward_layers, *model.encoder.backward_layers]
    assert len(layers) == 4
    for layer in layers:
        input_gate, forget_gate, cell, output_gate = layer.bias_ih_l0.chunk(4)
        assert torch.equal(forget_gate, torch.ones(5))
        others = torch.cat([input_gate, cell, output_gate, layer.bias_hh_l0])  # open by 1, not by 1 in each of two biases
        assert not others.any()
        for gate in layer.weight_hh_l0.chunk(4):
            assert torch.allclose(gate @ gate.T, torch.eye(5), atol=1e-5)
        assert layer.weight_ih_l0.std() > 0.1
    assert not model.encoder.embedding.weight[tiny.PAD].any() and model.encoder.embedding.weight.std() > 0.05


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_no_dropout_of_torchs_lstm(build, dropout):
    """Its random state on CUDA depends on what was drawn before."""
    model = build(num_layers=3, dropout=dropout, recurrent_dropout=dropout)
    lstms = [module for module in model.modules() if isinstance(module, nn.LSTM)]
    assert len(lstms) == 6 and all(lstm.dropout == 0 and lstm.num_layers == 1 for lstm in lstms)


@pytest.mark.parametrize("rates", [{"dropout": 0.4}, {"recurrent_dropout": 0.4}, {"dropout": 0.3, "recurrent_dropout": 0.2}])
def test_dropout_is_a_function_of_the_seed(build, rates):
    model, batch = build(num_layers=2, **rates).train(), tiny.batch()

    def logits(seed):
        torch.manual_seed(seed)
        return model(**batch).logits

    assert torch.equal(logits(1), logits(1)) and not torch.equal(logits(1), logits(2))
    model.eval()
    assert torch.equal(logits(1), logits(2))


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_to_disk_and_back(build, tmp_path, task, pooling):
    model = build(task, num_layers=2, pooling=pooling, dropout=0.25, recurrent_dropout=0.5).eval()
    model.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again, batch = registry.load(tmp_path), tiny.batch()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    assert again.config.to_diff_dict() == model.config.to_diff_dict()
    assert registry.adapt(again, tiny.spec(task)) is again


def test_a_number_starts_at_the_mean(build):
    assert build("regression").classifier.bias.tolist() == [2.5]


def test_other_labels_get_another_head(build):
    model = build()
    body = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    adapted = registry.adapt(model, tiny.spec("classification", label_names=("no", "yes")))
    assert adapted.classifier.out_features == 2 and adapted.config.id2label == {0: "no", 1: "yes"}
    assert all(torch.equal(tensor, body[name]) for name, tensor in adapted.encoder.state_dict().items())
    assert heads.new_weights(adapted) == {"classifier.weight", "classifier.bias"}


def test_each_token_is_read_in_both_directions_and_padding_in_none(build):
    """Of every text alone, and of torch's own two-way LSTM, the logits of its tokens are those in the batch."""
    model, batch = build("tagging", num_layers=2).eval(), tiny.batch()
    config, encoder = model.config, model.encoder
    both = torch.nn.LSTM(config.embedding_size, config.hidden_size, 2, batch_first=True, bidirectional=True)
    for i in range(2):
        for suffix, layers in (("", encoder.forward_layers), ("_reverse", encoder.backward_layers)):
            for name, weight in layers[i].named_parameters():
                both.get_parameter(f"{name[:-1]}{i}{suffix}").data = weight.data
    with torch.no_grad():
        together_BLC = model(**batch).logits
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            alone = model(**{name: values[row : row + 1, :length] for name, values in batch.items()}).logits[0]
            states = both(encoder.embedding(batch["input_ids"][row : row + 1, :length]))[0]
            assert torch.allclose(together_BLC[row, :length], alone, atol=1e-6)
            assert torch.allclose(model.classifier(states)[0], alone, atol=1e-6)
    assert together_BLC.shape == (*batch["input_ids"].shape, 3)


def test_a_classifier_becomes_a_tagger(build, tmp_path):
    model = build()
    body = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    adapted = registry.adapt(model, tiny.spec("tagging"))
    assert heads.task_of(adapted) == "tagging" and heads.new_weights(adapted) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(tensor, body[name]) for name, tensor in adapted.encoder.state_dict().items())
    adapted.save_pretrained(tmp_path)
    assert type(registry.load(tmp_path)) is type(adapted)
