"""LoRA as llmtune opens it against peft used directly on the same weights and batch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model

from llmtune import tuning
from llmtune.config.sections.tuning import LoraTuning
from tests import tiny

LORA = LoraTuning(type="lora", rank=3, alpha=6.0, dropout=0.0, target_modules=None)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "classification"),
        ("gpt2", "classification"),
        ("gpt2", "causal_lm"),
        ("llama", "classification"),
        ("llama", "causal_lm"),
    ],
)
def test_loss_and_gradients(name, task):
    plain, batch = tiny.model(name, task), tiny.batch()
    is_classifier = task == "classification"
    config = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", task_type="SEQ_CLS" if is_classifier else "CAUSAL_LM")
    theirs, ours = get_peft_model(copy.deepcopy(plain), config), tuning.apply(copy.deepcopy(plain), LORA)
    # peft learns a copy of the head, llmtune the head itself
    expected = {n.replace(".modules_to_save.default", ""): p for n, p in theirs.named_parameters() if p.requires_grad}
    found = {n: p for n, p in ours.named_parameters() if p.requires_grad}
    assert expected.keys() == found.keys()
    torch.manual_seed(1)
    for parameter_name in expected:  # B starts at zero, which would leave A without a gradient
        drawn = 0.2 * torch.randn_like(expected[parameter_name])
        expected[parameter_name].data.copy_(drawn)
        found[parameter_name].data.copy_(drawn)
    losses = []
    for model in (theirs, ours):
        logits = model(**batch).logits
        targets = torch.tensor([2, 0, 1]) if is_classifier else batch["input_ids"].flatten()
        losses.append(F.cross_entropy(logits if is_classifier else logits.flatten(0, 1), targets))
        losses[-1].backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for parameter_name, parameter in expected.items():
        assert parameter.grad.abs().sum() > 0
        assert torch.allclose(found[parameter_name].grad, parameter.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("task_index", [0, 2])
def test_merged_weights_give_what_the_adapter_gives(name, task_index):
    model, batch = tiny.model(name, tiny.tasks_of(name)[task_index]), tiny.batch()
    adapted = tuning.apply(model, LORA).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    with torch.no_grad():
        logits = adapted(**batch).logits
        merged = tuning.merged(adapted)
        assert type(merged) is type(model) and not any("lora" in n for n, _ in merged.named_parameters())
        assert torch.allclose(merged(**batch).logits, logits, rtol=0, atol=1e-6)
