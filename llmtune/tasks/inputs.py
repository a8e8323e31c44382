"""What a row is to the model: tokens of a text, or numbers."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from llmtune.tasks.base import Draw
from llmtune.tasks.text import TextInputs, example_ids, filled

__all__ = ["NumericInputs", "RowInputs", "TextRows", "example_ids"]


class RowInputs(Protocol):
    """The input side of a task that gives one answer for each row."""

    def describe(self) -> dict[str, Any]: ...

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]: ...

    def collate(self, examples: Sequence[dict], draw: Draw) -> tuple[dict[str, torch.Tensor], torch.Tensor]: ...


class TextRows:
    """Tokens of the text or the pair of texts; the text itself is kept for augmentation and reports."""

    def __init__(self, text: TextInputs):
        self.text = text

    def describe(self) -> dict[str, Any]:
        return self.text.describe()

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        texts = filled(columns["text"])
        pairs = filled(columns["text_pair"]) if "text_pair" in columns else None
        stored = {**self.text.encode_columns(texts, pairs), "text": texts}
        if pairs is not None:
            stored["text_pair"] = pairs
        return stored

    def collate(self, examples: Sequence[dict], draw: Draw) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return self.text.pad(self.text.augment(examples, draw))


class NumericInputs:
    """Numeric columns, with the mean and deviation of the train rows for the model to scale by."""

    def __init__(self, *, names: Sequence[str], mean: Sequence[float], std: Sequence[float]):
        self.names, self.mean, self.std = tuple(names), tuple(mean), tuple(std)

    def describe(self) -> dict[str, Any]:
        return {"feature_names": list(self.names), "feature_mean": list(self.mean), "feature_std": list(self.std)}

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        return {"features": columns["features"]}

    def collate(self, examples: Sequence[dict], draw: Draw) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        features_BF = np.stack([np.asarray(e["features"], dtype=np.float32) for e in examples])
        return {"features": torch.from_numpy(features_BF)}, torch.ones(len(examples), dtype=torch.int64)
