"""A last layer that works for the first token alone gives what transformers' own gives."""

import copy

import pytest
import torch
import transformers

from llmtune.models import first_token, heads
from llmtune.models.spec import ModelSpec

NAMES = sorted(name.removesuffix("ForSequenceClassification") for name in first_token.CLASSES)


def classifier(name: str, *, attention: str = "sdpa", dropout: float = 0.0, **options):
    config = getattr(transformers, f"{name}Config")(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        num_labels=3,
        pad_token_id=0,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **options,
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForSequenceClassification")._from_config(config, attn_implementation=attention)


def rows() -> dict[str, torch.Tensor]:
    """Four rows of 9 tokens, one of which is shorter."""
    ids = torch.randint(3, 50, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[1, 5:], mask[1, 5:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def is_narrow(model) -> bool:
    return hasattr(model.base_model.encoder.layer[-1], "whole_class")


@pytest.mark.parametrize("is_padded", [True, False])
@pytest.mark.parametrize("attention", first_token.KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_are_those_of_transformers(name, attention, is_padded):
    """Without padding transformers may leave out the mask."""
    whole = classifier(name, attention=attention).double()
    narrow = copy.deepcopy(whole)
    first_token.install(narrow)
    batch = rows() if is_padded else {"input_ids": rows()["input_ids"][2:], "attention_mask": torch.ones(2, 9)}
    logits = [model(**batch).logits for model in (whole, narrow)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-14)
    for each in logits:
        each.square().sum().backward()
    assert is_narrow(narrow)
    for (key, one), other in zip(whole.named_parameters(), narrow.parameters(), strict=True):
        if "pooler" not in key or one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=0, atol=1e-14, msg=key)


def test_the_last_layer_computes_one_token_a_row():
    model = classifier("Bert")
    first_token.install(model)
    shapes = []
    model.bert.encoder.layer[-1].intermediate.register_forward_hook(lambda module, given, made: shapes.append(made.shape))
    model(**rows())
    assert shapes == [(4, 1, 64)]


def test_dropout_applies_in_training_alone():
    model = classifier("Bert", dropout=0.5)
    first_token.install(model)
    trained = [model.train()(**rows()).logits for _ in range(2)]
    scored = [model.eval()(**rows()).logits for _ in range(2)]
    assert not torch.equal(*trained)
    assert torch.equal(*scored)


def test_a_body_that_gets_a_head_for_every_token_works_for_every_token():
    spec = ModelSpec(task="masked_lm", vocab_size=50, pad_token_id=0, max_length=40)
    narrow = classifier("Bert")
    first_token.install(narrow)
    made = heads.adapt(narrow, spec).eval()
    plain = transformers.BertForMaskedLM(made.config).eval()
    plain.load_state_dict(made.state_dict())
    assert not is_narrow(made)
    torch.testing.assert_close(made(**rows()).logits, plain(**rows()).logits)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_what_takes_other_masks_or_decodes_is_left_alone(attention):
    decoder = classifier("Bert", attention=attention, is_decoder=True)
    first_token.install(decoder)
    other = classifier("Bert")
    other.config._attn_implementation = "flex_attention"
    first_token.install(other)
    gpt = transformers.GPT2ForSequenceClassification(transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50))
    first_token.install(gpt)
    assert not is_narrow(decoder)
    assert not is_narrow(other)
    assert not any(hasattr(module, "whole_class") for module in gpt.modules())


def test_a_copy_is_narrow_with_its_own_weights():
    model = classifier("Bert").eval()
    first_token.install(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.bert.encoder.layer[-1].output.dense.weight.zero_()
    assert is_narrow(twin)
    assert not torch.equal(twin(**rows()).logits, model(**rows()).logits)
