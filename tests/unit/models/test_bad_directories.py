"""Model directories that must be refused: with the place, what is wrong, and what to do; nothing of them is run."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmtune.errors import ModelError
from llmtune.models import registry
from tests import tiny

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LAST_LAYER = "bert.encoder.layer.1.output.dense.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return tiny.save(tiny.model("bert", "classification"), tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def directory(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def written(name: str, content: str | bytes) -> Callable[[Path], None]:
    return lambda d: (d / name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def config(**changes) -> Callable[[Path], None]:
    def spoil(d: Path) -> None:
        content = json.loads((d / "config.json").read_text())
        (d / "config.json").write_text(json.dumps({**content, **changes}))

    return spoil


def weights(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoil(d: Path) -> None:
        tensors = load_file(d / WEIGHTS)
        change(tensors)
        save_file(tensors, d / WEIGHTS, metadata={"format": "pt"})

    return spoil


def indexed(name: str) -> Callable[[Path], None]:
    """All weights in a.safetensors, and an index that says they are in `name`."""

    def spoil(d: Path) -> None:
        names = list(load_file(d / WEIGHTS))
        (d / WEIGHTS).rename(d / "a.safetensors")
        (d / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, name)}))

    return spoil


def linked(name: str, target: str) -> Callable[[Path], None]:
    def spoil(d: Path) -> None:
        (d / name).unlink(missing_ok=True)
        (d / name).symlink_to(target)

    return spoil


def header(text: bytes, *, length: int | None = None, data: int = 0) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def truncated(d: Path) -> None:
    content = (d / WEIGHTS).read_bytes()
    (d / WEIGHTS).write_bytes(content[:-10])


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda d: [step(d) for step in steps] and None


TWICE = header(
    b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', data=2
)
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "there is no model directory"),
    "no config": (lambda d: (d / "config.json").unlink(), "there is no config.json"),
    "config is a folder": (lambda d: ((d / "config.json").unlink(), (d / "config.json").mkdir()), "there is no config.json"),
    "bad JSON": (written("config.json", "{"), "config.json is no JSON: .*line 1 column 2"),
    "not UTF-8": (written("config.json", b"\xff{}"), "config.json is no JSON"),
    "deep JSON": (written("config.json", "[" * 100_000), "config.json is no JSON"),
    "a list": (written("config.json", "[]"), "config.json holds no JSON object"),
    "unknown architecture": (config(model_type="nonsense"), "has no architecture 'nonsense'"),
    "no architecture": (written("config.json", "{}"), "has no architecture None"),
    "odd architecture": (config(model_type=["bert"]), r"has no architecture \['bert'\]"),
    "not for text": (config(model_type="vit"), "vit cannot do any task"),
    "odd config": (config(hidden_size="wide"), "cannot be loaded: .*hidden_size.*expected int"),
    "odd size": (config(hidden_size=-1), "cannot be loaded"),
    "heads that do not fit": (config(num_attention_heads=3), "not a multiple of the number of attention heads"),
    "unknown activation": (config(hidden_act="wavy"), "cannot be loaded: KeyError 'wavy'"),
    "odd labels": (config(id2label=["a", "b"]), "cannot be loaded"),
    "auto_map": (config(auto_map={"AutoModel": "code.Model"}), "brings code of its own .auto_map"),
    "a script": (written("modeling_own.py", "raise SystemExit(1)"), "brings code of its own .modeling_own.py"),
    "a script further down": (
        lambda d: ((d / "sub").mkdir(), (d / "sub" / "x.py").touch()),
        "brings code of its own .sub/x.py",
    ),
    "only a pickle": (lambda d: (d / WEIGHTS).rename(d / "pytorch_model.bin"), "in pytorch_model.bin, a pickle"),
    "no weights": (lambda d: (d / WEIGHTS).unlink(), "there is no model.safetensors"),
    "an adapter": (written("adapter_config.json", "{}"), "holds an adapter, no whole model"),
    "index to a neighbour": (indexed("../good/model.safetensors"), "index points outside the directory: '../good"),
    "index to an absolute path": (indexed("/etc/passwd"), "index points outside the directory: '/etc/passwd'"),
    "index to a parent": (indexed(".."), "the weight index names .., which is missing"),
    "index to nothing": (indexed("b.safetensors"), "the weight index names b.safetensors, which is missing"),
    "index to a pickle": (both(indexed("b.bin"), written("b.bin", b"\x80\x04N.")), "b.bin is no safetensors file"),
    "index without a map": (both(indexed("a.safetensors"), written(INDEX, "{}")), "has no weight_map"),
    "bad index": (both(indexed("a.safetensors"), written(INDEX, "{")), "index.json is no JSON"),
    "another width": (config(hidden_size=32), r"bert\.embeddings.* is \(16,\) in the file, but the config asks for \(32,\)"),
    "another vocabulary": (config(vocab_size=50), r"word_embeddings.weight is \(40, 16\) .* asks for \(50, 16\)"),
    "label count": (
        config(id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}),
        r"classifier.* is \(3,\) in the file, but the config asks for \(2,\)",
    ),
    "a weight less": (weights(lambda t: t.pop(LAST_LAYER)), f"1 weight is missing: {LAST_LAYER}"),
    "no head": (weights(lambda t: t.pop("classifier.weight")), "1 weight is missing: classifier.weight"),
    "no pooler": (weights(lambda t: t.pop("bert.pooler.dense.bias")), "1 weight is missing: bert.pooler.dense.bias"),
    "a weight more": (weights(lambda t: t.update({"bert.encoder.x": torch.zeros(1)})), "no place in the model: bert.encoder.x"),
    "a layer less": (config(num_hidden_layers=1), "16 weights have no place in the model: bert.encoder.layer.1"),
    "a layer more": (config(num_hidden_layers=3), "16 weights are missing: bert.encoder.layer.2"),
    "truncated": (truncated, "is damaged: it has .* bytes, its header says"),
    "longer than it says": (lambda d: (d / WEIGHTS).open("ab").write(b"more"), "is damaged: it has .* bytes, its header says"),
    "empty": (written(WEIGHTS, b""), "is no safetensors file"),
    "no safetensors": (written(WEIGHTS, b"PK\x03\x04" * 20), "is no safetensors file: its header is longer than the file"),
    "endless header": (written(WEIGHTS, header(b"{}", length=2**63)), "is no safetensors file"),
    "deep header": (written(WEIGHTS, header(b'{"a":' * 100_000)), "is no safetensors file"),
    "odd header": (written(WEIGHTS, header(b'{"a":{"data_offsets":"x"}}')), "is no safetensors file"),
    "one name twice": (written(WEIGHTS, TWICE), "is damaged: its header names a twice"),
    "weights linked from outside": (linked(WEIGHTS, "../other.safetensors"), "model.safetensors is a link that leads outside"),
    "config linked from outside": (linked("config.json", "/etc/passwd"), "config.json is a link that leads outside"),
    "folder linked from outside": (linked("more", "/etc"), "more is a link that leads outside"),
    "links in a circle": (linked(WEIGHTS, WEIGHTS), "there is no model.safetensors"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(directory, name):
    spoil, words = BAD[name]
    spoil(directory)
    with pytest.raises(ModelError, match=words) as caught:
        registry.load(directory)
    assert caught.value.exit_code == 4 and caught.value.where.startswith(str(directory)) and caught.value.remedy
    assert "\n" not in caught.value.message


def test_refused_of_a_body_alone(tmp_path):
    """Whose weights have no prefix by which to tell them from a head's."""
    directory = tiny.save(tiny.model("gpt2", "body"), tmp_path)
    config(n_layer=1)(directory)
    with pytest.raises(ModelError, match="11 weights have no place in the model: h.1"):
        registry.load(directory)


@pytest.mark.parametrize(
    "change",
    [
        indexed("a.safetensors"),
        weights(lambda t: t.update({"seq_relationship.weight": torch.zeros(2, 16)})),
        weights(lambda t: t.update({"bert.embeddings.position_ids": torch.arange(32)})),
        config(architectures=None),
        config(architectures=5),
        config(architectures=[["x"]]),
        config(architectures=["BertForPreTraining"]),
        linked("copy.json", "config.json"),
        written("README.md", "# a model"),
    ],
)
def test_harmless(directory, change):
    change(directory)
    model = registry.adapt(registry.load(directory), tiny.spec("classification"))
    assert torch.equal(model.bert.pooler.dense.weight, tiny.model("bert", "classification").bert.pooler.dense.weight)


def test_the_cache_of_the_hub(good, tmp_path):
    """It keeps each file of a snapshot as a link to a blob."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    shutil.copytree(good, blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert registry.load(snapshot).config.num_labels == 3


def test_left_out_weights_are_told(directory, capsys):
    weights(lambda t: t.update({"seq_relationship.weight": torch.zeros(2, 16)}))(directory)
    registry.load(directory)
    assert f"left out of {directory}: seq_relationship.weight\n" in capsys.readouterr().err
