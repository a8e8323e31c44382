"""Small classifiers and regressions that read tokens, and a micro-batch for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from llmtune.models import registry as models
from llmtune.objectives import registry
from llmtune.tasks.base import Batch, LossOf
from llmtune.tasks.classification import ClassificationTask
from llmtune.tasks.regression import RegressionTask
from tests import tiny

KINDS = ("lstm", "bert", "gpt")


@pytest.fixture
def model(section: Callable[..., Any]) -> Callable[..., nn.Module]:
    """`model("bert")`: a small one in training mode, without dropout unless it is named."""

    def make(kind: str, task: str = "classification", dropout: float = 0.0) -> nn.Module:
        sizes = {"embedding_size": 8} if kind == "lstm" else {"num_layers": 2, "num_heads": 2}
        torch.manual_seed(0)
        made = models.build(section(f"model/{kind}", hidden_size=16, dropout=dropout, **sizes), tiny.spec(task))
        return made.train()

    return make


@pytest.fixture
def task() -> Callable[[str], Any]:
    def make(kind: str = "classification") -> Any:
        if kind == "regression":
            return RegressionTask(None, target_mean=2.5, target_std=1.0)
        return ClassificationTask(None, label_names=tiny.LABELS)

    return make


@pytest.fixture
def build(task: Callable[[str], Any]) -> Callable[..., LossOf]:
    """`build(model, FGM)`: the loss with these sections."""

    def make(model: nn.Module, *sections: Any, kind: str = "classification") -> LossOf:
        named = {str(i): section for i, section in enumerate(sections)}
        return registry.build(task(kind), model, augment=named, objective=named)

    return make


def batch(num_texts: int = 5, *, task: str = "classification", seed: int = 0) -> Batch:
    inputs = tiny.batch(num_texts, seed=seed)
    if task == "regression":
        targets = {"values": torch.linspace(-1.0, 4.0, num_texts)}
    else:
        targets = {"labels": torch.arange(num_texts) % 3}
    return Batch(inputs, targets, torch.arange(num_texts), inputs["attention_mask"].sum(-1), float(num_texts))


def rows_of(whole: Batch, start: int, stop: int) -> Batch:
    """Some rows of a micro-batch, without padding that none of them needs."""
    longest = int(whole.lengths[start:stop].max())
    inputs = {name: t[start:stop, :longest] for name, t in whole.inputs.items()}
    targets = {name: t[start:stop] for name, t in whole.targets.items()}
    return Batch(inputs, targets, whole.example_ids[start:stop], whole.lengths[start:stop], float(stop - start))
