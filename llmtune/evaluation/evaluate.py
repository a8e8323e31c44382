"""Scores a model on a split, in batches of similar length; the metrics are added up as the batches come."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from llmtune import console
from llmtune.data.batches import evaluation_batches
from llmtune.data.prepared import Split
from llmtune.evaluation.answers import Answers
from llmtune.evaluation.tally import Tally, total
from llmtune.failures import is_out_of_memory
from llmtune.tasks.base import Draw, Scores, Task
from llmtune.training import memory
from llmtune.training.distributed import Ranks
from llmtune.training.precision import Compute


class Evaluation(NamedTuple):
    """Metrics of a split; and the answers for each example by name, in example order, if they were kept."""

    metrics: dict[str, Any]
    answers: dict[str, np.ndarray]


def evaluate(
    model: nn.Module,
    task: Task,
    split: Split,
    *,
    batch_size: int,
    compute: Compute,
    seed: int,
    ranks: Ranks | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
    keep_in: Path | None = None,
) -> Evaluation | None:
    """Score a split and compute the task's metrics, the same for any batch size and number of ranks.

    Args:
        model: on its device; it is left in eval mode.
        task: of the split's rows.
        split: at least one row.
        batch_size: examples at once.
        compute: device and precision.
        seed: of masks; equal seeds give equal masks.
        ranks: share the batches; all of them get the metrics.
        is_stopping: asked before each batch, unless there are several ranks.
        keep_in: a folder on whose disk the answers are kept, by one process alone. None: they are not.

    Returns:
        None if it was stopped.
    """
    from llmtune.evaluation import metrics  # imports `evaluate`, which takes seconds

    tally = Tally()
    kept = Answers(keep_in, split.num_rows) if keep_in is not None else None
    is_alone = ranks is None or ranks.size == 1
    mine = evaluation_batches(split.lengths, batch_size)
    if not is_alone:
        mine = mine[ranks.rank :: ranks.size]
    model.eval()
    with console.progress("evaluating", total=split.num_rows, unit="rows") as advance:
        for scores in score(model, task, split, mine, compute=compute, seed=seed):
            tally.add(scores)
            if kept is not None:
                kept.put(scores)
            advance(len(scores.example_ids) if is_alone else min(ranks.size * batch_size, split.num_rows))
            if is_alone and tally.num_examples < split.num_rows and is_stopping():
                return None
    if not is_alone:
        tally = total(ranks.gather(tally))
    types = task.scheme.types if task.type == "tagging" else ()
    found = metrics.compute(task.type, tally, label_names=task.describe().get("label_names", ()), entity_types=types)
    return Evaluation(found, kept.arrays if kept is not None else {})


def score(
    model: nn.Module, task: Task, split: Split, batches: list[np.ndarray], *, compute: Compute, seed: int
) -> Iterator[Scores]:
    """Loss and predictions of each batch of example indices; a batch that memory has no room for is halved.

    Raises:
        RuntimeError, MemoryError: there is no room for a single example.
    """
    for indices in batches:
        try:
            scores = _score(model, task, split, indices, compute=compute, seed=seed)
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e) or len(indices) == 1:
                raise
            scores = None
        if scores is not None:
            yield scores
            continue
        memory.free()
        yield from score(model, task, split, np.array_split(indices, 2), compute=compute, seed=seed)


def _score(model: nn.Module, task: Task, split: Split, indices: np.ndarray, *, compute: Compute, seed: int) -> Scores:
    rows = split.rows(indices)
    examples = [{**row, "id": int(i)} for row, i in zip(rows, indices, strict=True)]
    batch = task.collate(examples, Draw(seed, epoch=0, training=False))
    with torch.inference_mode(), compute.autocast():
        return task.score(model, batch.to(compute.device))
