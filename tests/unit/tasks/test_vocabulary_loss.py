"""Loss and gradients are those of the plain cross-entropy over all logits, whatever is left out on the way."""

import pytest
import torch
import torch.nn.functional as F

from llmtune.tasks import vocabulary_loss
from llmtune.tasks.vocabulary_loss import IGNORED, PLAIN_HEADS, summed_loss, token_losses
from tests import tiny

MODELS = [(name, task) for name in tiny.ARCHITECTURES for task in tiny.tasks_of(name) if task.endswith("lm")]


def targets(batch: dict[str, torch.Tensor], share: float) -> torch.Tensor:
    """Random labels at a share of the positions, none of them padding."""
    generator = torch.Generator().manual_seed(1)
    shape = batch["input_ids"].shape
    labels_BL = torch.randint(0, tiny.VOCAB_SIZE, shape, generator=generator)
    has_target = (torch.rand(shape, generator=generator) < share) & (batch["attention_mask"] == 1)
    return labels_BL.where(has_target, torch.tensor(IGNORED))


def plain_loss(model, inputs, labels_BL):
    return F.cross_entropy(
        model(**inputs).logits.float().flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def loss_and_gradients(of, model, batch, labels_BL):
    model.zero_grad(set_to_none=True)
    loss = of(model, batch, labels_BL)
    (2 * loss).backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1 << 24, 3 * tiny.VOCAB_SIZE], ids=["whole", "chunked"])
@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize(("name", "task"), MODELS)
def test_it_is_the_plain_loss(name, task, share, chunk, monkeypatch):
    monkeypatch.setattr(vocabulary_loss, "CHUNK", chunk)
    model, batch = tiny.model(name, task), tiny.batch(4, 11)
    labels_BL = targets(batch, share)
    expected, expected_gradients = loss_and_gradients(plain_loss, model, batch, labels_BL)
    found, gradients = loss_and_gradients(summed_loss, model, batch, labels_BL)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert gradients.keys() == expected_gradients.keys()
    for weight, gradient in gradients.items():
        assert torch.allclose(gradient, expected_gradients[weight], rtol=1e-4, atol=1e-5), weight


@pytest.mark.parametrize("name", [name for name in sorted(PLAIN_HEADS) if name in tiny.ARCHITECTURES])
def test_plain_heads_are_chunked(name, monkeypatch):
    """And the whole logits are never there."""
    monkeypatch.setattr(vocabulary_loss, "CHUNK", 3 * tiny.VOCAB_SIZE)
    sizes = []
    real = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda logits, *a, **k: (sizes.append(len(logits)), real(logits, *a, **k))[1])
    model, batch = tiny.model(name, "causal_lm"), tiny.batch(4, 11)
    summed_loss(model, batch, targets(batch, 1.0))
    assert sizes and max(sizes) == 3


def test_the_model_is_as_before():
    model, batch = tiny.model("llama", "causal_lm"), tiny.batch()
    before = model(**batch).logits
    for chunk in (1 << 24, 3 * tiny.VOCAB_SIZE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vocabulary_loss, "CHUNK", chunk)
            summed_loss(model, batch, targets(batch, 0.5))
    assert torch.equal(model(**batch).logits, before)


def test_a_frozen_head_needs_no_gradient(monkeypatch):
    monkeypatch.setattr(vocabulary_loss, "CHUNK", 3 * tiny.VOCAB_SIZE)
    model, batch = tiny.model("llama", "causal_lm"), tiny.batch()
    model.get_output_embeddings().requires_grad_(False)
    summed_loss(model, batch, targets(batch, 0.5)).backward()
    assert model.get_output_embeddings().weight.grad is None and model.model.layers[0].mlp.up_proj.weight.grad is not None


def test_bf16_is_near(monkeypatch):
    monkeypatch.setattr(vocabulary_loss, "CHUNK", 3 * tiny.VOCAB_SIZE)
    model, batch = tiny.model("llama", "causal_lm"), tiny.batch(4, 11)
    labels_BL = targets(batch, 0.7)
    expected, _ = loss_and_gradients(plain_loss, model, batch, labels_BL)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = loss_and_gradients(summed_loss, model, batch, labels_BL)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected.item(), rel=1e-2)


def test_without_a_target_it_is_zero():
    model, batch = tiny.model("bert", "masked_lm"), tiny.batch()
    loss = summed_loss(model, batch, torch.full_like(batch["input_ids"], IGNORED))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("chunk", [1 << 24, 3 * tiny.VOCAB_SIZE], ids=["whole", "chunked"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2", "opt"])
def test_the_loss_of_each_token(name, chunk, monkeypatch):
    """With weights that differ from token to token, as in a loss that is no sum."""
    monkeypatch.setattr(vocabulary_loss, "CHUNK", chunk)
    model, batch = tiny.model(name, "causal_lm"), tiny.batch(4, 11)
    labels_BL = targets(batch, 0.7)
    weights_B = torch.tensor([1.0, -2.0, 0.5, 3.0])

    def plain(model, inputs, labels_BL):
        logits_BLV = model(**inputs).logits.float()
        losses = F.cross_entropy(logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORED, reduction="none")
        return (losses.view_as(labels_BL).sum(1).square() * weights_B).sum()

    def of_tokens(model, inputs, labels_BL):
        losses_T, rows_T = token_losses(model, inputs, labels_BL)
        return (losses_T.new_zeros(4).index_add(0, rows_T, losses_T).square() * weights_B).sum()

    expected, expected_gradients = loss_and_gradients(plain, model, batch, labels_BL)
    found, gradients = loss_and_gradients(of_tokens, model, batch, labels_BL)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for weight, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[weight], rtol=1e-4, atol=1e-5)


def test_tokens_of_frozen_and_of_lowered_heads(monkeypatch):
    """The head takes no gradient where it does not learn, and its bits may be fewer."""
    monkeypatch.setattr(vocabulary_loss, "CHUNK", 3 * tiny.VOCAB_SIZE)
    model, batch = tiny.model("llama", "causal_lm"), tiny.batch(4, 11)
    labels_BL = targets(batch, 1.0)
    expected = token_losses(model, batch, labels_BL)[0].detach()
    model.lm_head.weight.requires_grad_(False)
    token_losses(model, batch, labels_BL)[0].square().sum().backward()
    assert model.lm_head.weight.grad is None and model.model.embed_tokens.weight.grad.abs().sum() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rows_T = token_losses(model, batch, labels_BL)
        found.sum().backward()
    assert found.dtype == torch.float32 and rows_T.tolist() == sorted(rows_T.tolist())
    torch.testing.assert_close(found.detach(), expected, rtol=0.05, atol=0.05)
