"""A tiny model with random weights, its task and a split of rows of many lengths, for each kind of task."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from llmtune.data.prepared import Split, write_split
from llmtune.models.lstm import LstmConfig, LstmForSequenceClassification, LstmForTokenClassification
from llmtune.tasks.classification import ClassificationTask
from llmtune.tasks.inputs import NumericInputs, TextRows
from llmtune.tasks.language_modeling import CausalLmTask, MaskedLmTask
from llmtune.tasks.multilabel import MultilabelTask
from llmtune.tasks.regression import RegressionTask
from llmtune.tasks.tagging import TaggingTask
from llmtune.tasks.text import TextInputs
from llmtune.training.precision import Compute

NUM_ROWS, VOCAB_SIZE = 23, 50
CPU = Compute(torch.device("cpu"), "fp32")


class OneFeature(torch.nn.Module):
    """A line through numeric rows [B, 1]."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, features):
        return type("Output", (), {"logits": self.line(features)})


def text_inputs(has_pairs=False):
    return TextInputs(None, max_length=20, pad_token_id=0, token_types=False, has_pairs=has_pairs)


def classification():
    config = LstmConfig(vocab_size=VOCAB_SIZE, embedding_size=8, hidden_size=8, num_labels=3)
    task = ClassificationTask(TextRows(text_inputs(has_pairs=True)), label_names=["bad", "<good>", "so-so"])
    return LstmForSequenceClassification(config), task


def regression():
    inputs = NumericInputs(names=["x"], mean=[0.0], std=[1.0])
    return OneFeature(), RegressionTask(inputs, target_mean=0.0, target_std=1.0)


def multilabel():
    config = LstmConfig(vocab_size=VOCAB_SIZE, embedding_size=8, hidden_size=8, num_labels=3)
    task = MultilabelTask(TextRows(text_inputs()), label_names=["bad", "<good>", "so-so"], threshold=0.5)
    return LstmForSequenceClassification(config), task


def tagging():
    config = LstmConfig(vocab_size=VOCAB_SIZE, embedding_size=8, hidden_size=8, num_labels=5)
    return LstmForTokenClassification(config), TaggingTask(text_inputs(), label_names=["O", "B-<x>", "I-<x>", "B-y", "I-y"])


def causal_lm():
    config = GPT2Config(vocab_size=VOCAB_SIZE, n_positions=32, n_embd=8, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config), CausalLmTask(text_inputs(), end_of_text=1)


def masked_lm():
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    task = MaskedLmTask(text_inputs(), mask_probability=0.3, mask_token_id=2, special_ids=[0, 1, 2], vocab_size=VOCAB_SIZE)
    return BertForMaskedLM(BertConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=32, **sizes)), task


MAKERS = {
    "classification": classification,
    "regression": regression,
    "multilabel": multilabel,
    "tagging": tagging,
    "causal_lm": causal_lm,
    "masked_lm": masked_lm,
}


def columns(task_type):
    rng = np.random.default_rng(0)
    if task_type == "regression":
        x = rng.normal(size=NUM_ROWS)
        return {"features": [[v] for v in x.tolist()], "target": (2 * x + 1).tolist()}
    stored = {"input_ids": [rng.integers(3, VOCAB_SIZE, size=n).tolist() for n in rng.integers(2, 20, size=NUM_ROWS)]}
    if task_type != "causal_lm":
        stored["text"] = [f"text {i} <script>alert(1)</script> ü\u2028 " + "long " * i**2 for i in range(NUM_ROWS)]
    if task_type == "classification":
        stored |= {"text_pair": ["pair"] * NUM_ROWS, "label": rng.integers(0, 3, size=NUM_ROWS).tolist()}
    if task_type == "multilabel":
        stored["labels"] = [np.flatnonzero(rng.random(3) < 0.5).tolist() for _ in range(NUM_ROWS)]
    if task_type == "tagging":  # every other token begins a word, and the last word has none
        counts = [len(ids) // 2 for ids in stored["input_ids"]]
        stored["spans"] = [[i for w in range(n + 1) for i in (w, w + 1)] for n in counts]
        stored["positions"] = [[*range(1, 2 * n, 2), -1] for n in counts]
        stored["tags"] = [rng.integers(0, 5, size=n + 1).tolist() for n in counts]
    return stored


@pytest.fixture(params=MAKERS)
def case(request, tmp_path):
    """Model, task and split of one kind."""
    torch.manual_seed(0)
    model, task = MAKERS[request.param]()
    write_split(tmp_path, "test", [columns(request.param)])
    return model, task, Split(tmp_path / "test.arrow")


@pytest.fixture
def compute():
    return CPU
