"""What every task is to the rest of the house. B: examples of a batch, L: tokens of the longest, F: numeric features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Draw:
    """Key of the random draws of one collation: masks and augmentation depend on it and the example index alone."""

    seed: int
    epoch: int
    training: bool = True


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    Attributes:
        inputs: what the model's forward takes: `input_ids` and `attention_mask` (int64, [B, L]), or `features`
            (float32, [B, F]); only these travel into exports.
        targets: what the loss compares with, e.g. `labels` (int64 [B], or [B, L]) or `values` (float32 [B]).
        example_ids: row of each example in its split, int64 [B].
        lengths: tokens of each example without padding, int64 [B].
        num_targets: what the loss is divided by: examples, or predicted tokens. Known before the model runs, so that a
            window of micro-batches over several ranks can be normalised by its whole sum.
    """

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    example_ids: Tensor
    lengths: Tensor
    num_targets: float

    def to(self, device: torch.device) -> "Batch":
        move = lambda tensors: {name: t.to(device, non_blocking=True) for name, t in tensors.items()}  # noqa: E731
        return Batch(move(self.inputs), move(self.targets), self.example_ids, self.lengths, self.num_targets)

    def pin_memory(self) -> "Batch":
        pin = lambda tensors: {name: t.pin_memory() for name, t in tensors.items()}  # noqa: E731
        return Batch(pin(self.inputs), pin(self.targets), self.example_ids, self.lengths, self.num_targets)


@dataclass(frozen=True)
class LossTerms:
    """A loss as a sum over the batch's targets, so that any cut into micro-batches and ranks gives the same mean.

    Attributes:
        sum: the loss summed over the targets, a scalar that carries gradient.
        parts: named shares of `sum`, or other sums over the targets, for the log: scalars without gradient; the same names for
            every batch of a run.
    """

    sum: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


LossOf = Callable[[nn.Module, Batch], LossTerms]  # what is made small: the task's loss, or an objective around it


@dataclass(frozen=True)
class Scores:
    """What one evaluation batch yields, one entry for each example, on the CPU.

    Attributes:
        example_ids: int64 [B].
        loss_sums: float64 [B], each example's loss summed over its targets.
        weights: float64 [B], each example's number of targets.
        outputs: per-example arrays [B, ...], such as `prediction`, `reference`, `probabilities`.
        sums: over the batch, of equal shape in every batch: what metrics follow from that are no mean of a loss.
    """

    example_ids: np.ndarray
    loss_sums: np.ndarray
    weights: np.ndarray
    outputs: dict[str, np.ndarray]
    sums: dict[str, np.ndarray] = field(default_factory=dict)


class Task(Protocol):
    """A kind of job. Built by `tasks.registry`; holds only what `describe()` tells, so that it can be rebuilt from a run."""

    type: str

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts that travel with every checkpoint: type, label names, target statistics, max_length."""
        ...

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Rows of canonical columns to stored columns without nulls, once, when the data is prepared. Raises DataError."""
        ...

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        """Stored rows to one padded micro-batch."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        """The training loss. The task calls the model, as often as it likes."""
        ...

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        """Loss and predictions of each example, under no_grad and in eval mode."""
        ...
