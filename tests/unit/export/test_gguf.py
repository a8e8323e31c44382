"""GGUF files of models of llmtune and of others, read back. V: vocabulary."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from llmtune.config.sections.training import GgufExport
from llmtune.data import tokenizer as tokenizers
from llmtune.errors import ModelError, ResourceError
from llmtune.export import Bundle, parity, registry
from llmtune.export import gguf as writing
from llmtune.models import gguf as reading
from llmtune.models import registry as model_registry
from llmtune.tasks.base import Batch
from tests import tiny, tiny_gguf
from tests.unit.export.conftest import TEXTS, batches, described, files_of

gguf = pytest.importorskip("gguf")

ODD = [*TEXTS, "  two  spaces 123 4567", "don't  stop\n\n\tnow", "价格是12元 😀 naïve", "<|endoftext|>a", "", " ", "x" * 300]


def export(outtype: str = "f32") -> GgufExport:
    return GgufExport(type="gguf", outtype=outtype)


@pytest.fixture
def of_config(tmp_path):
    """`of_config(config)`: a random model of an architecture, larger than its tokenizer, with a chat template."""
    return partial(tiny_gguf.bundle, tmp_path)


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("kind", tiny_gguf.CONFIGS)
def test_it_is_the_model_again(of_config, tmp_path, kind, outtype):
    made = of_config(tiny_gguf.CONFIGS[kind])
    registry.write(export(outtype), made, tmp_path / "export")
    told = parity.check(export(outtype), made, tmp_path / "export", batches(made))
    assert told["max_difference"] <= 1e-4 and told["argmax_differences"] == 0
    if outtype == "f32":
        assert "rounding" not in told
    else:
        assert 1e-6 < told["rounding"]["max_difference"] < (0.02 if outtype == "f16" else 0.5)
    assert files_of(tmp_path / "export") == {"model.gguf", "llmtune.json", "README.md"}
    assert "someone" not in (tmp_path / "export" / "llmtune.json").read_text()


def test_the_tokenizer_and_its_template_are_inside(of_config, tmp_path):
    made = of_config(tiny_gguf.CONFIGS["llama"])
    registry.write(export(), made, tmp_path / "export")
    model, theirs = reading.load(tmp_path / "export" / "model.gguf")
    ours = tokenizers.load(made.tokenizer_dir)
    assert [theirs(text)["input_ids"] for text in ODD] == [ours(text)["input_ids"] for text in ODD]
    assert theirs.chat_template == tiny_gguf.TEMPLATE
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(theirs, name) == getattr(ours, name) == getattr(model.generation_config, name)


def test_a_gpt_of_ours(section, tmp_path):
    made = tokenizers.train("bpe", family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=TEXTS)
    made.save_pretrained(tmp_path / "tokenizer")
    spec = tiny.spec("causal_lm", vocab_size=len(made), pad_token_id=made.pad_token_id, eos_token_id=made.eos_token_id)
    model = model_registry.build(section("model/gpt", hidden_size=32, num_heads=2), spec).eval()
    task = {"type": "causal_lm", "max_length": tiny.MAX_LENGTH, "pad_token_id": made.pad_token_id, "token_types": False}
    bundle = Bundle(model, tmp_path / "tokenizer", described(task), {"task": "causal_lm"})
    registry.write(export(), bundle, tmp_path / "export")
    assert parity.check(export(), bundle, tmp_path / "export", batches(bundle))["max_difference"] <= 1e-5
    reader = gguf.GGUFReader(tmp_path / "export" / "model.gguf")
    assert reader.fields["gpt2.context_length"].contents() == tiny.MAX_LENGTH  # llama.cpp's table of positions has that size


CUTS = {
    "gpt-2": {},
    "smollm": {"before": [pre_tokenizers.Digits(individual_digits=True)]},
    "llama-bpe": {"ignore_merges": True},
    "qwen2": {"normalizer": normalizers.NFC()},
}


@pytest.mark.parametrize("name", CUTS)
def test_ways_to_cut_have_names(name, of_config, tmp_path):
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    options = CUTS[name]
    if name in GGUF_PRE_TOKENIZER_SPLITS:
        split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
        options = {**options, "before": [split], "use_regex": False}
    made = of_config(tiny_gguf.CONFIGS["llama"], tiny_gguf.bytes_bpe(**options))
    registry.write(export(), made, tmp_path / "export")
    reader = gguf.GGUFReader(tmp_path / "export" / "model.gguf")
    assert reader.fields["tokenizer.ggml.pre"].contents() == name
    _, theirs = reading.load(tmp_path / "export" / "model.gguf")
    ours = tokenizers.load(made.tokenizer_dir)
    for text in ODD:
        assert theirs(text)["input_ids"] == ours(text)["input_ids"], text


def test_a_beginning_that_the_tokenizer_adds_is_told(of_config, tmp_path):
    tokenizer = tiny_gguf.bytes_bpe()
    tokenizer.post_processor = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    registry.write(export(), of_config(tiny_gguf.CONFIGS["llama"], tokenizer), tmp_path / "export")
    fields = gguf.GGUFReader(tmp_path / "export" / "model.gguf").fields
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    assert fields["tokenizer.ggml.add_eos_token"].contents() is False


@pytest.mark.parametrize(
    ("tokenizer", "told"),
    [
        (lambda: tiny_gguf.bytes_bpe(normalizer=normalizers.Lowercase()), "tokenizer.lowercase=false"),
        (lambda: tiny_gguf.bytes_bpe(prefix=True), "no space before a text"),
        (lambda: tiny_gguf.bytes_bpe(before=[pre_tokenizers.Punctuation()]), "no name for"),
        (lambda: Tokenizer(models.WordLevel({"<|endoftext|>": 0, "<|im_start|>": 1, "a": 2}, "a")), "WordLevel, of words"),
    ],
)
def test_tokenizers_that_llama_cpp_lacks(of_config, tmp_path, tokenizer, told):
    with pytest.raises(ModelError, match=told) as caught:
        registry.write(export(), of_config(tiny_gguf.CONFIGS["llama"], tokenizer()), tmp_path / "export")
    assert "~export.gguf" in caught.value.remedy


def test_models_that_it_does_not_write(of_config, bundle, tmp_path):
    with pytest.raises(ModelError, match="causal language models, and this one is BertForSequenceClassification"):
        registry.write(export(), bundle("bert", "classification"), tmp_path / "1")
    neox = transformers.GPTNeoXConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ModelError, match="gpt_neox, but gpt2, llama"):
        registry.write(export(), of_config(neox), tmp_path / "2")
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(ModelError, match=r"scaled \(linear\)"):
        registry.write(export(), of_config(transformers.LlamaConfig(**tiny_gguf.SIZES, rope_parameters=scaled)), tmp_path / "3")
    with pytest.raises(ModelError, match="hidden_act=relu but silu"):
        registry.write(export(), of_config(transformers.LlamaConfig(**tiny_gguf.SIZES, hidden_act="relu")), tmp_path / "4")


def test_rounding_is_that_of_llama_cpp():
    """Blocks of 32 with a common half-precision scale; rows of another length keep half precision."""
    weight = torch.randn(3, 64)
    stored, kind = writing._stored("x.weight", weight, "q8_0")
    assert kind.name == "Q8_0" and stored.shape == (3, 2 * 34)
    scales = weight.numpy().reshape(3, 2, 32)
    scales = np.abs(scales).max(-1, keepdims=True) / 127
    error = np.abs(gguf.dequantize(stored, kind).reshape(3, 2, 32) - weight.numpy().reshape(3, 2, 32))
    assert (error <= 0.55 * scales + 1e-3 * np.abs(weight.numpy()).max()).all()
    assert writing._stored("x.weight", torch.randn(3, 33), "q8_0")[1].name == "F16"
    assert writing._stored("x.bias", torch.randn(64), "q8_0")[1].name == "F32"


def test_without_the_package(of_config, tmp_path, monkeypatch):
    made = of_config(tiny_gguf.CONFIGS["llama"])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ResourceError) as caught:
        registry.write(export(), made, tmp_path / "export")
    assert caught.value.remedy == "pip install 'llmtune[gguf]'"


def test_an_export_with_another_tokenizer_is_refused(of_config, tmp_path, monkeypatch):
    made = of_config(tiny_gguf.CONFIGS["llama"])
    other = tiny_gguf.save_tokenizer(tiny_gguf.bytes_bpe(texts=["<|fi<|fi<|fi"]), tmp_path / "other")
    monkeypatch.setitem(
        parity.READERS, "gguf", lambda directory: parity.Exported(lambda x: made.model(**x).logits.numpy(), other)
    )
    ids_BL = torch.tensor([tokenizers.load(made.tokenizer_dir)("a fine film")["input_ids"]])
    inputs = {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
    batch = Batch(inputs, {}, torch.arange(1), torch.tensor([ids_BL.shape[1]]), 1.0)
    with pytest.raises(ModelError, match="cuts a text in another way: 'a fine film'"):
        parity.check(export(), made, tmp_path, [batch])
