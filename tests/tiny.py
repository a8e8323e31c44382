"""Tiny random models of many architectures, and a batch of token ids for them. B: texts, L: tokens."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from llmtune.models.spec import NAMING, ModelSpec

VOCAB_SIZE, PAD, MAX_LENGTH = 40, 0, 16
LABELS = ("negative", "neutral", "positive")

_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "pad_token_id": PAD,
}
_ENCODERS: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "roberta": {**_COMMON, "pad_token_id": 1},
    "distilbert": {
        "vocab_size": VOCAB_SIZE,
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 32,
        "max_position_embeddings": 32,
    },
    "electra": {**_COMMON, "embedding_size": 8},
    "albert": {**_COMMON, "embedding_size": 8},
    "deberta-v2": {**_COMMON, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "mpnet": _COMMON,
}
_CAUSAL: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": VOCAB_SIZE, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "gpt_neox": _COMMON,
    "llama": _COMMON,
    "qwen2": {**_COMMON, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "opt": {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "ffn_dim": 32,
        "max_position_embeddings": 32,
        "word_embed_proj_dim": 16,
        "pad_token_id": PAD,
    },
}
ARCHITECTURES = {**_ENCODERS, **_CAUSAL}
FORMS = {
    "body": "AutoModel",
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "multilabel": "AutoModelForSequenceClassification",
    "tagging": "AutoModelForTokenClassification",
    "masked_lm": "AutoModelForMaskedLM",
    "causal_lm": "AutoModelForCausalLM",
}


def tasks_of(name: str) -> list[str]:
    """The tasks that an architecture can do."""
    return ["classification", "regression", "masked_lm" if name in _ENCODERS else "causal_lm"]


def model(name: str, form: str, **changes: Any) -> PreTrainedModel:
    """A random model as transformers makes it, in eval mode; `form` is a task, or 'body' for a model without a head."""
    torch.manual_seed(0)
    labels: dict[str, Any] = {}
    if form in ("classification", "regression"):
        names = LABELS if form == "classification" else ("value",)
        labels = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}, "pad_token_id": PAD}
    if form == "regression":
        labels["problem_type"] = "regression"
    config = config_of(name, **labels, **changes)
    made = getattr(transformers, FORMS[form]).from_config(config)
    for parameter in made.parameters():  # biases and norms are constant at first, and would hide that they were mixed up
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def config_of(name: str, **changes: Any) -> PretrainedConfig:
    return transformers.AutoConfig.for_model(name, **{**ARCHITECTURES[name], **changes})


def save(made: PreTrainedModel, directory: Path) -> Path:
    made.save_pretrained(directory)
    return directory


def spec(task: str, **changes: Any) -> ModelSpec:
    """What a task asks of a model: three labels, or a number around 2.5."""
    names = LABELS if task in NAMING else ()
    known = {"label_names": names, "vocab_size": VOCAB_SIZE, "pad_token_id": PAD, "max_length": MAX_LENGTH, "target_mean": 2.5}
    return ModelSpec(task=task, **{**known, **changes})


def batch(num_texts: int = 3, longest: int = 7, *, seed: int = 0) -> dict[str, Tensor]:
    """Token ids and mask [B, L]; the first text is the longest, the others are padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.randint(1, longest + 1, (num_texts,), generator=generator)
    lengths_B[0] = longest
    mask_BL = (torch.arange(longest)[None, :] < lengths_B[:, None]).long()
    ids_BL = torch.randint(2, VOCAB_SIZE, (num_texts, longest), generator=generator)
    return {"input_ids": ids_BL.where(mask_BL == 1, torch.tensor(PAD)), "attention_mask": mask_BL}
