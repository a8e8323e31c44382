"""Loss and gradients of task=instruction are those of transformers, given labels that are known from the template."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llmtune.data import tokenizer as tokenizers
from llmtune.data.forms import MESSAGES
from llmtune.tasks import chat_templates
from llmtune.tasks.base import Draw
from llmtune.tasks.instruction import InstructionTask
from llmtune.tasks.text import TextInputs

CHATS = [
    [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "three"}],
    [
        {"role": "system", "content": "count"},
        {"role": "user", "content": "four"},
        {"role": "assistant", "content": "five six seven"},
        {"role": "user", "content": "eight"},
        {"role": "assistant", "content": "nine"},
    ],
]


@pytest.mark.parametrize("num_micro_batches", [1, 2])
def test_loss_and_gradients(num_micro_batches):
    texts = [turn["content"] for chat in CHATS for turn in chat]
    tokenizer = tokenizers.train("bpe", family="gpt", vocab_size=300, min_frequency=1, lowercase=False, texts=texts)
    chat_templates.add_tokens(tokenizer, "chatml")
    chat_templates.install(tokenizer, "chatml")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes))

    rows = []  # the same by hand: each turn for itself, which special tokens divide
    for chat in CHATS:
        ids, labels = [], []
        for turn in chat:
            head = tokenizer.encode(f"<|im_start|>{turn['role']}\n", add_special_tokens=False)
            body = tokenizer.encode(f"{turn['content']}<|im_end|>", add_special_tokens=False)
            tail = tokenizer.encode("\n", add_special_tokens=False)
            is_learned = turn["role"] == "assistant"
            ids += [*head, *body, *tail]
            labels += [*[-100] * len(head), *(body if is_learned else [-100] * len(body)), *[-100] * len(tail)]
        rows.append((ids, labels))
    longest = max(len(ids) for ids, _ in rows)
    pad = lambda values, fill: [*values, *[fill] * (longest - len(values))]  # noqa: E731
    ids = torch.tensor([pad(ids, 0) for ids, _ in rows])
    mask = torch.tensor([pad([1] * len(ids), 0) for ids, _ in rows])
    expected = model(input_ids=ids, attention_mask=mask, labels=torch.tensor([pad(labels, -100) for _, labels in rows])).loss
    expected.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    text = TextInputs(None, max_length=128, pad_token_id=0, token_types=False, has_pairs=False)
    text.__dict__["tokenizer"] = tokenizer
    how = {"answers": "all", "system_prompt": None, "too_long": "cut", "packing": False, "end_ids": ()}
    task = InstructionTask(text, **how)
    stored = pa.RecordBatch.from_pydict(task.encode({"messages": pa.array(CHATS, MESSAGES)})).to_pylist()
    examples = [{"id": i, **{name: np.array(values) for name, values in row.items()}} for i, row in enumerate(stored)]
    parts = np.array_split(np.arange(len(examples)), num_micro_batches)
    batches = [task.collate([examples[i] for i in part], Draw(0, 0)) for part in parts]
    num_targets = sum(batch.num_targets for batch in batches)
    total = 0.0
    for batch in batches:
        loss = task.loss(model, batch).sum / num_targets
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(expected.item(), rel=1e-5)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, grads[name], rtol=1e-5, atol=1e-6), name
