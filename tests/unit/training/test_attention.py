"""Attention on the CPU, beside transformers' eager kernel and torch's own."""

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llmtune.training import attention, dropout

MASKS = {
    "none": None,
    "boolean": torch.ones(3, 1, 1, 6, dtype=torch.bool).index_fill(3, torch.tensor([4, 5]), False),
    "of each head": torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.8,
    "added": torch.zeros(3, 1, 6, 6).index_fill(3, torch.tensor([5]), -1e30),
}
MASKS["of each head"][..., 0] = True  # every query sees a key


@pytest.fixture
def parts() -> list[torch.Tensor]:
    """Query, key and value [3, 2, 6, 4] as a model gives them: not contiguous."""
    torch.manual_seed(0)
    return [torch.randn(3, 6, 2, 4, dtype=torch.float64).transpose(1, 2).requires_grad_() for _ in range(3)]


def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropout, "zeros_and_ones", lambda shape, p, dtype: (torch.ones(shape, dtype=dtype), 1.0))


def both(parts, mask, **how):
    """Output and gradients of ours, with dropout asked for, and of torch's without."""
    module, results = SimpleNamespace(is_causal=False), []
    for attend, p in ((attention.attend, 0.1), (sdpa_attention_forward, 0.0)):
        out, _ = attend(module, *parts, mask, dropout=p, **how)
        results.append([out, *torch.autograd.grad((out * torch.arange(out.numel()).view(out.shape)).sum(), parts)])
    return zip(*results, strict=True)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_values_and_gradients_are_torchs(parts, mask: str, is_causal: bool, monkeypatch):
    keep_all(monkeypatch)
    for ours, torchs in both(parts, MASKS[mask], scaling=0.3, is_causal=is_causal and mask == "none"):
        assert ours.shape == torchs.shape and torch.allclose(ours, torchs, rtol=1e-5, atol=1e-5 * torchs.abs().max().item())


def test_the_scaling_is_torchs(parts, monkeypatch):
    keep_all(monkeypatch)
    for ours, torchs in both(parts, None, is_causal=False):
        assert torch.allclose(ours, torchs, rtol=1e-5, atol=1e-5 * torchs.abs().max().item())


def test_the_gradient_with_dropout_is_that_of_the_formula(parts):
    def formula(query, key, value):
        weights = torch.softmax((query @ key.mT * 0.5).float(), -1) * dropout.mask((3, 2, 6, 6), 0.4, torch.float32)
        return (weights.double() @ value).transpose(1, 2)

    results = []
    for attend in (formula, lambda *parts: attention.attend(SimpleNamespace(is_causal=False), *parts, None, 0.4, 0.5)[0]):
        torch.manual_seed(7)
        out = attend(*parts)
        results.append([out, *torch.autograd.grad(out.square().sum(), parts)])
    for expected, ours in zip(*results, strict=True):
        assert torch.allclose(expected, ours, rtol=1e-4, atol=1e-5)


def test_a_row_that_sees_nothing_is_finite(parts):
    mask = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    mask[0, :, 2] = False
    out, _ = attention.attend(SimpleNamespace(is_causal=False), *parts, mask, 0.1, 0.5)
    assert out.isfinite().all() and all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), parts))


def test_without_dropout_it_is_torchs_kernel(parts):
    module = SimpleNamespace(is_causal=True)
    ours, _ = attention.attend(module, *parts, None, 0.0, 0.5)
    assert torch.equal(ours, sdpa_attention_forward(module, *parts, None, scaling=0.5)[0])


@pytest.mark.parametrize("mask", MASKS)
def test_bfloat16_without_dropout(parts, mask: str, monkeypatch):
    """Our own, as near to float64 as torch's kernel is."""
    monkeypatch.setattr(dropout, "zeros_and_ones", None)  # nothing is drawn
    module, masks = SimpleNamespace(is_causal=True), MASKS[mask]
    low = [part.detach().bfloat16().requires_grad_() for part in parts]
    results = []
    for tensors, attend in ((parts, sdpa_attention_forward), (low, sdpa_attention_forward), (low, attention.attend)):
        fit = masks.to(tensors[0].dtype) if mask == "added" else masks
        out, _ = attend(module, *tensors, fit, dropout=0.0, scaling=0.5)
        results.append([part.double() for part in (out, *torch.autograd.grad(out.double().square().sum(), tensors))])
    for exact, torchs, ours in zip(*results, strict=True):
        assert (ours - exact).abs().max() <= 2 * (torchs - exact).abs().max() + 0.02 * exact.abs().max()


@pytest.mark.parametrize("kind", ["none", "boolean", "added"])
@pytest.mark.parametrize("length", [attention.VECTOR - 1, attention.VECTOR, 2 * attention.VECTOR])
def test_bfloat16_of_rows_that_fill_whole_vectors_or_not(length: int, kind: str):
    """As near to float64 as rounding allows; what a mask adds in float32 is not rounded before it is added."""
    torch.manual_seed(0)
    low = [torch.randn(2, length, 3, 8).bfloat16().transpose(1, 2).requires_grad_() for _ in range(3)]
    exact = [part.detach().double().requires_grad_() for part in low]
    added = torch.rand(2, 1, length, length) - 300.0  # 300 and a fraction: bfloat16 knows steps of two there
    mask = {"none": None, "boolean": torch.rand(2, 1, length, length) < 0.8, "added": added}[kind]
    if kind == "boolean":
        mask[..., 0] = True
    module, results = SimpleNamespace(is_causal=True), []
    for parts, attend in ((low, attention.attend), (exact, sdpa_attention_forward)):
        fit = mask.double() if kind == "added" and parts is exact else mask
        out, _ = attend(module, *parts, fit, dropout=0.0, scaling=0.3)
        results.append([out.double(), *torch.autograd.grad(out.double().square().sum(), parts)])
    for ours, expected in zip(*results, strict=True):
        assert (ours.double() - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("dropped", [0.0, 0.1])
def test_fewer_keys_than_heads(parts, dropped: float, monkeypatch):
    """As in Llama: neighbouring heads share keys and values."""
    keep_all(monkeypatch)
    module = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    query, key, value = (part.detach().float() for part in parts)
    few = (query, key[:, :1], value[:, :1])
    whole, _ = sdpa_attention_forward(module, query, *(part.expand(-1, 2, -1, -1) for part in few[1:]), None, scaling=0.5)
    ours, _ = attention.attend(module, *(part.bfloat16() for part in few), None, dropped, 0.5)
    assert torch.allclose(ours.float(), whole, atol=0.05)


def test_many_scores_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(attention, "MOST_SCORES", 10)
    monkeypatch.setattr(attention, "_Attention", None)
    parts = [torch.randn(1, 2, 4, 8, dtype=torch.bfloat16) for _ in range(3)]
    assert attention.attend(SimpleNamespace(is_causal=True), *parts, None)[0].shape == (1, 4, 2, 8)


def test_what_ours_does_not_know_is_left_to_torch(parts):
    with pytest.raises(ValueError, match="softcap"):
        attention.attend(SimpleNamespace(is_causal=False), *parts, None, 0.1, 0.5, softcap=30.0)


def test_all_weights_dropped(parts):
    out, _ = attention.attend(SimpleNamespace(is_causal=False), *parts, None, 0.999999, 0.5)
    assert not out.any() and not any(g.any() for g in torch.autograd.grad(out.sum(), parts))
