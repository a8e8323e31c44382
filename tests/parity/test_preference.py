"""Losses and gradients of task=preference are those of formulas over whole logits, each answer read alone, without padding."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from llmtune.data import tokenizer as tokenizers
from llmtune.data.forms import MESSAGES
from llmtune.tasks import chat_templates
from llmtune.tasks.base import Draw
from llmtune.tasks.preference import REFERENCE, PreferenceTask, ReferenceTask
from llmtune.tasks.preference_losses import Settings
from llmtune.tasks.text import TextInputs

PAIRS = [("one two", "three", "four five six"), ("seven", "eight nine ten eleven", "no"), ("twelve " * 8, "b", "c")]
LOSSES = {
    "dpo": Settings(0.3, 0.0, 0.0),
    "conservative dpo": Settings(0.3, 0.2, 0.0),
    "ipo": Settings(0.2, 0.0, 0.0),
    "orpo": Settings(0.5, 0.0, 0.0),
    "simpo": Settings(2.5, 0.0, 1.2),
}


def answer(model, tokenizer, asked: str, said: str) -> tuple[torch.Tensor, int]:
    """Log-probability of an answer and the token that ends it, and how many tokens these are."""
    prompt = tokenizer.encode(f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    rest = tokenizer.encode(f"{said}<|im_end|>", add_special_tokens=False)
    ids = torch.tensor([[*prompt, *rest]])
    shares = F.log_softmax(model(input_ids=ids).logits[0, len(prompt) - 1 : -1], -1)
    return shares[torch.arange(len(rest)), ids[0, len(prompt) :]].sum(), len(rest)


def by_formula(name: str, s: Settings, chosen, rejected, chosen_reference, rejected_reference) -> torch.Tensor:
    (c, n_c), (r, n_r), (ref_c, _), (ref_r, _) = chosen, rejected, chosen_reference, rejected_reference
    if "dpo" in name:
        difference = s.beta * ((c - ref_c) - (r - ref_r))
        right = torch.sigmoid(difference).log()
        return -(1 - s.label_smoothing) * right - s.label_smoothing * (1 - torch.sigmoid(difference)).log()
    if name == "ipo":
        return ((c - ref_c) / n_c - (r - ref_r) / n_r - 1 / (2 * s.beta)) ** 2
    if name == "orpo":
        odds = [(m.exp() / (1 - m.exp())) for m in (c / n_c, r / n_r)]
        return -c / n_c - s.beta * torch.sigmoid((odds[0] / odds[1]).log()).log()
    return -torch.sigmoid(s.beta * c / n_c - s.beta * r / n_r - s.margin).log()


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients(name):
    texts = [text for pair in PAIRS for text in pair]
    tokenizer = tokenizers.train("bpe", family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=texts)
    chat_templates.add_tokens(tokenizer, "chatml")
    chat_templates.install(tokenizer, "chatml")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)).eval()
    start = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))

    text = TextInputs(None, max_length=128, pad_token_id=0, token_types=False, has_pairs=False)
    text.__dict__["tokenizer"] = tokenizer
    how = {"loss": name.split()[-1], "settings": LOSSES[name], "system_prompt": None, "too_long": "drop", "end_ids": ()}
    task = PreferenceTask(text, **how)
    columns = {
        column: pa.array([[{"role": "user", "content": p[0]}, {"role": "assistant", "content": p[k]}] for p in PAIRS], MESSAGES)
        for k, column in ((1, "messages"), (2, "rejected"))
    }
    rows = pa.RecordBatch.from_pydict(task.encode(columns)).to_pylist()
    examples = [{"id": i, **{column: np.array(values) for column, values in row.items()}} for i, row in enumerate(rows)]
    with torch.no_grad():
        reference = ReferenceTask(task).score(start, task.collate(examples, Draw(0, 0))).outputs
    examples = [{**e, **{side: reference[side][i] for side in REFERENCE}} for i, e in enumerate(examples)]
    batch = task.collate(examples, Draw(0, 0))
    loss = task.loss(model, batch).sum / batch.num_targets
    loss.backward()
    grads = {weight: p.grad.clone() for weight, p in model.named_parameters()}
    model.zero_grad()

    losses = []
    for asked, *said in PAIRS:
        own = [answer(model, tokenizer, asked, one) for one in said]
        with torch.no_grad():
            references = [answer(start, tokenizer, asked, one) for one in said]
        losses.append(by_formula(name, LOSSES[name], *own, *references))
    expected = torch.stack(losses).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for weight, parameter in model.named_parameters():
        torch.testing.assert_close(grads[weight], parameter.grad, rtol=1e-3, atol=1e-5, msg=weight)
