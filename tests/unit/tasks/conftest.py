"""Prepared rows of small files, and models whose outputs are known."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llmtune.data import prepared
from llmtune.data.preparation import Origin, Preparation
from llmtune.tasks.prepare import build

MODEL_OF = {"causal_lm": "gpt", "masked_lm": "bert"}
TRAINED = {"vocab_size": 400, "min_frequency": 1}


@pytest.fixture
def prepared_rows(section, files, tmp_path) -> Callable[..., Any]:
    """`prepared_rows({"a.csv": text}, task="classification", ...)`: what is prepared from the files.

    `tokenizer`, `model`, `split` and `task` name options; mappings change their values; the rest changes the data section.
    """

    def make(
        contents, *, task="classification", model=None, tokenizer=None, split=None, origin=None, seed=0, clean=None, **data
    ):
        options = {
            "task": (task, "classification"),
            "model": (model, MODEL_OF.get(str(task), "lstm")),
            "tokenizer": (tokenizer, "auto"),
            "split": (split, "stratified"),
        }
        sections = {}
        for group, (given, default) in options.items():
            name, changes = (default, dict(given)) if isinstance(given, dict) else (given or default, {})
            if group == "tokenizer" and name != "pretrained":
                changes = {**TRAINED, **changes}
            sections[group] = section(f"{group}/{changes.pop('type', name)}", **changes)
        if sections["task"].type in MODEL_OF:
            data.setdefault("label_column", None)
        wanted = Preparation(files(contents, **data), **sections, origin=origin or Origin(), seed=seed, clean=clean or {})
        return prepared.open_or_build(wanted.key, partial(build, wanted), cache_dir=tmp_path / "cache")

    return make


class Fixed(nn.Module):
    """A model that answers with what it was given, whatever it is asked; keeps what it was asked."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.asked: dict[str, torch.Tensor] = {}

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        self.asked = inputs
        return SimpleNamespace(logits=self.logits)


@pytest.fixture
def fixed() -> type[Fixed]:
    return Fixed
