"""What prepared rows are made from. Nothing here imports torch, so that rows in the cache are found again at once."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import llmtune
from llmtune.config.sections.clean import CleanConfig
from llmtune.config.sections.data import DataConfig
from llmtune.config.sections.model import CHATS, ModelConfig, TaskConfig
from llmtune.config.sections.split import SplitConfig
from llmtune.config.sections.tokenizer import TokenizerConfig
from llmtune.data import sources

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Origin:
    """What the weights that training starts from bring along: nothing at all from scratch.

    Attributes:
        tokenizer_dir: of the model's own tokenizer.
        max_length: tokens it can read, or None if it does not say.
        description: `Task.describe()` of the run it comes from.
    """

    tokenizer_dir: Path | None = None
    max_length: int | None = None
    description: dict[str, Any] | None = None

    def key(self) -> list:
        """What of it decides about the prepared rows: the content of its tokenizer, and its label names."""
        described = [self.max_length, (self.description or {}).get("label_names")]
        if self.tokenizer_dir is None:
            return [None, *described]
        files = [self.tokenizer_dir / name for name in TOKENIZER_FILES]
        return [[(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files if f.is_file()], *described]


@dataclass(frozen=True)
class Preparation:
    """Everything that decides about the prepared rows."""

    data: DataConfig
    split: SplitConfig
    tokenizer: TokenizerConfig
    task: TaskConfig
    model: ModelConfig
    origin: Origin
    seed: int
    clean: Mapping[str, CleanConfig]

    @property
    def family(self) -> str:
        """The kind of model, of whose tokenizer a new one takes the special tokens: 'lstm', 'bert' or 'gpt'."""
        if self.model.type in ("lstm", "mlp"):
            return "lstm"
        return "gpt" if self.task.type in ("causal_lm", *CHATS) or self.model.type == "gpt" else "bert"

    @cached_property
    def key(self) -> dict[str, Any]:
        """Of the entry in the cache, JSON-ready; it holds a hash of each source file as it is when first asked for.

        Raises:
            DataError: a file is missing or cannot be read.
        """
        return {
            "llmtune": llmtune.__version__,
            "inputs": sources.fingerprint(self.data),
            "data": self.data.model_dump(mode="json"),
            "clean": [[name, cleaner.model_dump(mode="json")] for name, cleaner in self.clean.items()],  # the order counts
            "split": self.split.model_dump(mode="json"),
            "tokenizer": self.tokenizer.model_dump(mode="json"),
            "task": self.task.model_dump(mode="json"),
            "family": self.family,
            "origin": self.origin.key(),
            "seed": self.seed,
        }
