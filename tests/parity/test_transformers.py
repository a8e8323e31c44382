"""Models that llmtune builds against transformers' own classes with the same weights."""

import pytest
import torch
import transformers

from llmtune.errors import ConfigError
from llmtune.models import registry
from tests import tiny

FROM_SCRATCH = [
    ("bert", "classification", "BertForSequenceClassification"),
    ("bert", "regression", "BertForSequenceClassification"),
    ("bert", "masked_lm", "BertForMaskedLM"),
    ("gpt", "classification", "GPT2ForSequenceClassification"),
    ("gpt", "regression", "GPT2ForSequenceClassification"),
    ("gpt", "causal_lm", "GPT2LMHeadModel"),
]
WITHOUT_SDPA = ("deberta-v2", "mpnet")
LOADED = [(name, task) for name in tiny.ARCHITECTURES for task in tiny.tasks_of(name)]


@pytest.mark.parametrize(("kind", "task", "class_name"), FROM_SCRATCH)
def test_from_scratch(section, tmp_path, kind, task, class_name):
    built = registry.build(section(f"model/{kind}", hidden_size=16, num_heads=2), tiny.spec(task, eos_token_id=0)).eval()
    theirs = getattr(transformers, class_name).from_pretrained(tiny.save(built, tmp_path)).eval()
    batch = tiny.batch()
    with torch.no_grad():
        assert torch.allclose(built(**batch).logits, theirs(**batch).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "task"), LOADED)
def test_from_a_directory_with_the_head_for_the_task(section, tmp_path, name, task):
    theirs = tiny.model(name, task)
    built = registry.build(section("model/bert", pretrained=str(tiny.save(theirs, tmp_path))), tiny.spec(task))
    assert type(built) is type(theirs) and not built.training
    weights = theirs.state_dict()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in built.state_dict().items())
    batch = tiny.batch()
    with torch.no_grad():
        assert torch.allclose(built(**batch).logits, theirs(**batch).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "task"), LOADED)
def test_with_a_new_head(section, tmp_path, name, task):
    """What `adapt` puts together answers as the class of transformers does that is given the same weights."""
    directory = tiny.save(tiny.model(name, "body"), tmp_path)
    built = registry.build(section("model/bert", pretrained=str(directory)), tiny.spec(task)).eval()
    theirs = type(built)(built.config).eval()
    theirs.load_state_dict(built.state_dict())
    batch = tiny.batch()
    with torch.no_grad():
        assert torch.allclose(built(**batch).logits, theirs(**batch).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in tiny.ARCHITECTURES if name not in WITHOUT_SDPA])
def test_kernels_of_attention_agree(section, tmp_path, name):
    task = tiny.tasks_of(name)[-1]
    directory = tiny.save(tiny.model(name, task), tmp_path)
    batch = tiny.batch()
    logits_BLV = {}
    for kind in ("eager", "sdpa", "auto"):
        built = registry.build(section("model/bert", pretrained=str(directory), attention=kind), tiny.spec(task))
        assert built.config._attn_implementation == ("eager" if kind == "eager" else "sdpa")
        with torch.no_grad():
            logits_BLV[kind] = built(**batch).logits
    is_text_BL = batch["attention_mask"].bool()
    assert torch.allclose(logits_BLV["eager"][is_text_BL], logits_BLV["sdpa"][is_text_BL], rtol=0, atol=1e-5)
    assert torch.equal(logits_BLV["auto"], logits_BLV["sdpa"])


@pytest.mark.parametrize("name", WITHOUT_SDPA)
def test_a_kernel_that_the_architecture_lacks(section, tmp_path, name):
    directory = str(tiny.save(tiny.model(name, "masked_lm"), tmp_path))
    built = registry.build(section("model/bert", pretrained=directory), tiny.spec("masked_lm"))
    assert built.config._attn_implementation == "eager"
    with pytest.raises(ConfigError, match="has no sdpa: use model.attention=auto"):
        registry.build(section("model/bert", pretrained=directory, attention="sdpa"), tiny.spec("masked_lm"))
