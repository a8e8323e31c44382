"""The ONNX graph: any batch and length, and never another answer than the checkpoint's."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llmtune.errors import ModelError, ResourceError
from llmtune.export import Bundle, onnx, parity, registry
from llmtune.tasks.base import Batch
from tests import tiny
from tests.unit.export.conftest import NUM_ROWS, ONNX, batches, files_of

KINDS = [
    ("lstm", "classification"),
    ("lstm", "regression"),
    ("bert", "classification"),
    ("bert", "masked_lm"),
    ("gpt", "classification"),
    ("gpt", "causal_lm"),
    ("mlp", "regression"),
]


def last_weight(model: torch.nn.Module) -> torch.Tensor:
    """Of the layer that gives the logits."""
    places = ("classifier", "score", "cls.predictions", "transformer.wte")
    return [parameter for name, parameter in model.named_parameters() if name.startswith(places)][-1].data


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_any_batch_and_length(bundle, tmp_path, kind, task):
    made = bundle(kind, task)
    registry.write(ONNX, made, tmp_path / "export")
    assert not made.model.training
    found = parity.check(ONNX, made, tmp_path / "export", batches(made))
    assert found == {**found, "rows": 8 if kind == "mlp" else NUM_ROWS, "argmax_differences": 0, "tolerance": 1e-4}
    assert found["max_difference"] < 1e-5
    companions = {"llmtune.json"} if kind == "mlp" else {"llmtune.json", "tokenizer.json", "tokenizer_config.json"}
    assert files_of(tmp_path / "export") == {"model.onnx", *companions}
    assert json.loads((tmp_path / "export" / "llmtune.json").read_text())["task"]["type"] == task
    graph = onnx.session(tmp_path / "export")
    assert [node.name for node in graph.get_outputs()] == ["logits"]
    assert {node.name for node in graph.get_inputs()} == ({"features"} if kind == "mlp" else {"input_ids", "attention_mask"})

    # The same graph, another model: one weight moved, by which the answers change.
    last_weight(made.model).view(-1)[0] += 0.5
    with pytest.raises(ModelError, match=rf"by up to \d\.\d\de.\d\d in the logits, \d+ other argmax in {found['rows']} rows"):
        parity.check(ONNX, made, tmp_path / "export", batches(made))


@pytest.mark.parametrize(
    ("name", "task"),
    [("roberta", "classification"), ("distilbert", "masked_lm"), ("albert", "classification"), ("llama", "causal_lm")],
)
def test_other_architectures(tmp_path, name, task):
    model = tiny.model(name, task)
    facts = {"type": task, "max_length": tiny.MAX_LENGTH, "pad_token_id": tiny.PAD, "token_types": False}
    made = Bundle(model, None, {"task": facts}, {})
    registry.write(ONNX, made, tmp_path / "export")
    inputs = [tiny.batch(1, 1), tiny.batch(7, tiny.MAX_LENGTH)]
    rows = [Batch(x, {}, torch.arange(len(x["input_ids"])), x["attention_mask"].sum(-1), 1.0) for x in inputs]
    assert parity.check(ONNX, made, tmp_path / "export", rows)["max_difference"] < 1e-5


def test_pairs_of_texts(tmp_path):
    facts = {"type": "classification", "max_length": tiny.MAX_LENGTH, "pad_token_id": tiny.PAD, "token_types": True}
    made = Bundle(tiny.model("bert", "classification"), None, {"task": facts}, {})
    made.model.bert.embeddings.token_type_embeddings.weight.data *= 20
    registry.write(ONNX, made, tmp_path / "export")
    inputs = tiny.batch(3, 9)
    inputs["token_type_ids"] = (torch.arange(9) > 4).long().expand(3, 9) * inputs["attention_mask"]
    with torch.no_grad():
        expected = made.model(**inputs).logits.numpy()
    found = onnx.session(tmp_path / "export").run(["logits"], {name: t.numpy() for name, t in inputs.items()})[0]
    assert np.allclose(found, expected, rtol=0, atol=1e-5)
    without = made.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.detach().numpy()
    assert not np.allclose(found, without, rtol=0, atol=1e-3)


def test_a_flipped_sign_in_the_file(bundle, tmp_path):
    import onnx as onnx_package

    made = bundle("bert", "classification")
    registry.write(ONNX, made, tmp_path / "export")
    file = tmp_path / "export" / "model.onnx"
    graph = onnx_package.load(file)
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name.endswith("classifier.bias"))
    values = onnx_package.numpy_helper.to_array(weight) * np.float32(-1)
    weight.CopyFrom(onnx_package.numpy_helper.from_array(values, weight.name))
    onnx_package.save(graph, file)
    with pytest.raises(ModelError, match="differs from the checkpoint"):
        parity.check(ONNX, made, tmp_path / "export", batches(made))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing(bundle, tmp_path, monkeypatch, package):
    made = bundle("mlp", "regression")
    if package == "onnxruntime":
        registry.write(ONNX, made, tmp_path / "export")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ResourceError, match=f"export=onnx needs the package {package}\n") as caught:
        if package == "onnx":
            registry.write(ONNX, made, tmp_path / "export")
        parity.check(ONNX, made, tmp_path / "export", [])
    assert caught.value.remedy == "pip install 'llmtune[onnx]'" and caught.value.exit_code == 5


def test_a_graph_that_cannot_be_traced(bundle, tmp_path, monkeypatch):
    made = bundle("mlp", "regression")
    monkeypatch.setattr(made.model, "forward", lambda features: SimpleNamespace(logits=torch.linalg.svdvals(features)))
    with pytest.raises(ModelError, match="cannot be written as ONNX") as caught:
        registry.write(ONNX, made, tmp_path / "export")
    assert caught.value.remedy == "leave it out with ~export.onnx"
