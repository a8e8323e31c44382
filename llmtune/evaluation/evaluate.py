"""Scores a model on a split: predictions in batches of similar length, results in the order of the examples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from llmtune import console
from llmtune.data.batches import evaluation_batches
from llmtune.data.prepared import Split
from llmtune.tasks.base import Draw, Scores, Task
from llmtune.training.distributed import Ranks
from llmtune.training.precision import Compute


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split and the scores of its examples, in example order."""

    metrics: dict[str, Any]
    scores: Scores


def score_split(
    model: nn.Module,
    task: Task,
    split: Split,
    *,
    batch_size: int,
    compute: Compute,
    seed: int,
    ranks: Ranks | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Loss and predictions of every example, in example order, whatever the batch size and the number of ranks.

    Args:
        model: on its device; it is left in eval mode.
        task: of the split's rows.
        split: at least one row.
        batch_size: examples at once.
        compute: device and precision.
        seed: of masks; equal seeds give equal masks.
        ranks: share the batches; all of them get all scores.
        is_stopping: asked before each batch, unless there are several ranks.

    Returns:
        None if it was stopped.
    """
    rank, num_ranks = (ranks.rank, ranks.size) if ranks is not None else (0, 1)
    losses_N, weights_N = np.zeros(split.num_rows), np.zeros(split.num_rows)
    outputs: dict[str, np.ndarray] = {}
    draw = Draw(seed, epoch=0, training=False)
    batches = evaluation_batches(split.lengths, batch_size)
    is_idle = rank >= len(batches)  # it still has to know what the outputs look like
    model.eval()
    progress = console.progress("evaluating", total=split.num_rows, unit="rows")
    with torch.inference_mode(), compute.autocast(), progress as advance:
        for indices in batches[:1] if is_idle else batches[rank::num_ranks]:
            if num_ranks == 1 and is_stopping():
                return None
            rows = split.rows(indices)
            batch = task.collate([{**row, "id": int(i)} for row, i in zip(rows, indices, strict=True)], draw)
            scores = task.score(model, batch.to(compute.device))
            for name, values in scores.outputs.items():
                outputs.setdefault(name, np.zeros((split.num_rows, *values.shape[1:]), dtype=values.dtype))
            if not is_idle:
                losses_N[indices], weights_N[indices] = scores.loss_sums, scores.weights
                for name, values in scores.outputs.items():
                    outputs[name][indices] = values
            advance(min(num_ranks * len(indices), split.num_rows))
    if ranks is not None:
        losses_N, weights_N = ranks.sum_array(losses_N), ranks.sum_array(weights_N)
        outputs = {name: ranks.sum_array(values) for name, values in outputs.items()}
    return Scores(np.arange(split.num_rows), losses_N, weights_N, outputs)


def evaluate(model: nn.Module, task: Task, split: Split, **how: Any) -> Evaluation | None:
    """Score a split and compute the task's metrics; `how` is that of `score_split`. None if it was stopped."""
    from llmtune.evaluation import metrics  # imports `evaluate`, which takes seconds

    scores = score_split(model, task, split, **how)
    if scores is None:
        return None
    names = task.describe().get("label_names", ())
    found = metrics.compute(
        task.type, outputs=scores.outputs, loss_sums=scores.loss_sums, weights=scores.weights, label_names=names
    )
    return Evaluation(found, scores)
