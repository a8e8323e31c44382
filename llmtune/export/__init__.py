"""Forms in which a model leaves llmtune, each compared with the checkpoint before it is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Bundle:
    """What an export is made of.

    Attributes:
        model: plain, in eval mode, float32, on the CPU; one with virtual tokens has them still.
        tokenizer_dir: whose tokenizer files go along; None for numeric rows.
        description: llmtune.json: the task, label names, max_length.
        card: facts for the model card.
        opened: gives the same model with its adapter apart, and the directory of the weights that the adapter belongs to.
    """

    model: nn.Module
    tokenizer_dir: Path | None
    description: dict[str, Any]
    card: dict[str, Any]
    opened: Callable[[], tuple[nn.Module, Path]] | None = None
