"""Scores a model on a split: predictions in batches of similar length, results in the order of the examples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from llmtune import console
from llmtune.data.batches import evaluation_batches
from llmtune.data.prepared import Split
from llmtune.tasks.base import Draw, Scores, Task
from llmtune.training.precision import Compute


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split and the scores of its examples, in example order."""

    metrics: dict[str, Any]
    scores: Scores


def score_split(model: nn.Module, task: Task, split: Split, *, batch_size: int, compute: Compute, seed: int) -> Scores:
    """Loss and predictions of every example, in example order, whatever the batch size.

    Args:
        model: on its device; it is left in eval mode.
        task: of the split's rows.
        split: at least one row.
        batch_size: examples at once.
        compute: device and precision.
        seed: of masks; equal seeds give equal masks.
    """
    losses_N, weights_N = np.zeros(split.num_rows), np.zeros(split.num_rows)
    outputs: dict[str, np.ndarray] = {}
    draw = Draw(seed, epoch=0, training=False)
    model.eval()
    with torch.inference_mode(), compute.autocast(), console.progress("evaluating", total=split.num_rows, unit="rows") as advance:
        for indices in evaluation_batches(split.lengths, batch_size):
            rows = split.rows(indices)
            batch = task.collate([{**row, "id": int(i)} for row, i in zip(rows, indices, strict=True)], draw)
            scores = task.score(model, batch.to(compute.device))
            losses_N[indices], weights_N[indices] = scores.loss_sums, scores.weights
            for name, values in scores.outputs.items():
                if name not in outputs:
                    outputs[name] = np.zeros((split.num_rows, *values.shape[1:]), dtype=values.dtype)
                outputs[name][indices] = values
            advance(len(indices))
    return Scores(np.arange(split.num_rows), losses_N, weights_N, outputs)


def evaluate(model: nn.Module, task: Task, split: Split, *, batch_size: int, compute: Compute, seed: int) -> Evaluation:
    """Score a split and compute the task's metrics."""
    from llmtune.evaluation import metrics  # imports `evaluate`, which takes seconds

    scores = score_split(model, task, split, batch_size=batch_size, compute=compute, seed=seed)
    names = task.describe().get("label_names", ())
    found = metrics.compute(
        task.type, outputs=scores.outputs, loss_sums=scores.loss_sums, weights=scores.weights, label_names=names
    )
    return Evaluation(found, scores)
