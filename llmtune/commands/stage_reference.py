"""What the model that training starts from says of the answers of preferences: computed once, before training, and kept."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from llmtune import console, paths
from llmtune.commands.preparing import cache_dir
from llmtune.config.sections.model import ModelConfig
from llmtune.data import prepared
from llmtune.data.batches import evaluation_batches
from llmtune.data.prepared import Prepared, Split
from llmtune.errors import CheckpointError, ModelError
from llmtune.evaluation.evaluate import score
from llmtune.models.location import locate
from llmtune.tasks.base import Task
from llmtune.tasks.preference import OF_LOSS, REFERENCE, PreferenceTask, ReferenceTask
from llmtune.training import run_dir
from llmtune.training.precision import Compute
from llmtune.training.restore import Restored

BATCH_SIZE = 16  # pairs at once
WEIGHTS = ("config.json", "llmtune.json", "learned.safetensors")  # and those of any name that begins with `model`


def needs_reference(task: Task) -> bool:
    """Whether the loss of a task compares with the model that training starts from."""
    return isinstance(task, PreferenceTask) and task.needs_reference


def with_reference(
    split: Split, task: PreferenceTask, *, model: ModelConfig, start: Callable[[], nn.Module], compute: Compute
) -> tuple[Split, str]:
    """The rows with the log-probabilities of their answers under the model that training starts from; and what names these.

    They come from the cache if neither rows nor model have changed since; the settings of the loss do not matter.

    Args:
        split: prepared rows.
        task: of the rows.
        model: what training starts from, as the config says.
        start: builds it, on its device; low-rank updates of it are left aside.
        compute: device, and precision of what the log-probabilities are to be compared with.
    """
    name, key = split.path.stem, prepared.key_of(split.path.parent)
    key["task"] = {setting: value for setting, value in key["task"].items() if setting not in OF_LOSS}
    key = {"reference_of": key, "split": name, "model": _identity(model)}
    key |= {"device": compute.device.type, "precision": compute.precision}

    def build(directory: Path) -> dict[str, Any]:
        prepared.write_split(directory, name, [_log_probs(start(), task, split, compute)])
        return {}

    entry = prepared.open_or_build(key, build, cache_dir=cache_dir())
    numbers = {column: entry.splits[name].numbers(column) for column in REFERENCE}
    return split.with_numbers(numbers), entry.directory.name


def of_stage(
    ready: Prepared, task: Task, *, model: ModelConfig, start: nn.Module, train: Compute, evaluate: Compute
) -> tuple[Prepared, list[str]]:
    """The rows that training reads with their references, if the loss needs any; and what names these.

    Train rows are scored in the precision of training, so that rounding is the same on both sides of the comparison.
    """
    if not needs_reference(task):
        return ready, []
    splits, names = dict(ready.splits), []
    for name, compute in (("train", train), ("validation", evaluate)):
        if name in splits:
            splits[name], made = with_reference(splits[name], task, model=model, start=lambda: start, compute=compute)
            names.append(made)
    return replace(ready, splits=splits), names


def of_evaluation(split: Split, task: Task, restored: Restored, compute: Compute) -> Split:
    """Prepared rows that a trained model is to be scored on, with their references, if the loss needs any.

    Raises:
        CheckpointError: the model that training started from is not there any more.
    """
    if not needs_reference(task):
        return split
    try:
        model, start = restored.start()
        how = {"model": model, "start": lambda: start().to(compute.device), "compute": compute}
        return with_reference(split, task, **how)[0]
    except (CheckpointError, ModelError) as e:
        told = f"rewards are relative to the model that training started from, which cannot be read: {e.message}"
        raise CheckpointError(told, where=e.where, remedy="bring it back") from None


def made_up(ready: Prepared, task: Task) -> Prepared:
    """Zeros in the place of references, for who wants to know nothing but time and memory."""
    if not needs_reference(task):
        return ready
    zeros = {name: dict.fromkeys(REFERENCE, np.zeros(split.num_rows)) for name, split in ready.splits.items()}
    return replace(ready, splits={name: split.with_numbers(zeros[name]) for name, split in ready.splits.items()})


def _log_probs(model: nn.Module, task: PreferenceTask, split: Split, compute: Compute) -> dict[str, Any]:
    """Of the answers of all rows, without dropout and low-rank updates."""
    found = {column: np.empty(split.num_rows) for column in REFERENCE}
    without_updates = getattr(model, "disable_adapter", contextlib.nullcontext)
    batches = evaluation_batches(split.lengths, BATCH_SIZE)
    was_training = model.training
    model.eval()
    with without_updates(), console.progress(f"reference of {split.path.stem}", total=split.num_rows, unit="pairs") as advance:
        for scores in score(model, ReferenceTask(task), split, batches, compute=compute, seed=0):
            for column, values in scores.outputs.items():
                found[column][scores.example_ids] = values
            advance(len(scores.example_ids))
    model.train(was_training)
    return found


def _identity(model: ModelConfig) -> dict[str, Any]:
    """What tells whether a model is the same: the content of its files, and how it computes."""
    place = paths.resolve(model.path) if model.type == "run" else None
    directory = run_dir.locate_checkpoint(place) if place is not None else locate(model.pretrained, model.revision)
    files = [file for file in sorted(directory.iterdir()) if file.name in WEIGHTS or file.match("model*.safetensors")]
    digests = [[file.name, _digest(file)] for file in files]
    return {"files": digests, "attention": getattr(model, "attention", None)}


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
