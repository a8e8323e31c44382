"""What the model that training starts from says of the answers of preferences: computed once, before training, and kept."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
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
from llmtune.models import adapters
from llmtune.models.location import locate
from llmtune.tasks import registry as tasks
from llmtune.tasks.base import Task
from llmtune.tasks.preference import OF_LOSS, REFERENCE, PreferenceTask, ReferenceTask
from llmtune.training import run_dir
from llmtune.training.precision import Compute
from llmtune.training.restore import Restored, plain_start

BATCH_SIZE = 16  # pairs at once
NOT_OF_MODEL = ("optimizer", "trainer", "MANIFEST", "thresholds")  # beginnings of names of other files in a checkpoint


def needs_reference(task: Task) -> bool:
    """Whether the loss of a task compares with the model that training starts from."""
    return isinstance(task, PreferenceTask) and task.needs_reference


def of_stage(
    model: ModelConfig, ready: Prepared, task: Task, *, train: Compute, evaluate: Compute
) -> tuple[Prepared, list[str]]:
    """The rows that training reads with their references, if the loss needs any; and what names these.

    Train rows are scored in the precision of training, so that rounding is the same on both sides of the comparison.
    """
    if not needs_reference(task):
        return ready, []
    spec = tasks.model_spec(ready.meta["task"], ready.meta["tokenizer"])
    build_start = cache(partial(plain_start, model, spec))
    splits, names = dict(ready.splits), []
    for name, compute in (("train", train), ("validation", evaluate)):
        if name in splits:
            splits[name], made = _beside(splits[name], task, model, build_start, compute)
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
        return _beside(split, task, *restored.before(), compute)[0]
    except (CheckpointError, ModelError) as e:
        told = f"rewards are relative to the model that training started from, which cannot be read: {e.message}"
        raise CheckpointError(told, where=e.where, remedy="bring it back") from None


def made_up(ready: Prepared, task: Task) -> Prepared:
    """Zeros in the place of references, for who wants to know nothing but time and memory."""
    if not needs_reference(task):
        return ready
    zeros = {name: dict.fromkeys(REFERENCE, np.zeros(split.num_rows)) for name, split in ready.splits.items()}
    return replace(ready, splits={name: split.with_numbers(zeros[name]) for name, split in ready.splits.items()})


def _beside(
    split: Split, task: PreferenceTask, model: ModelConfig, build_start: Callable[[], nn.Module], compute: Compute
) -> tuple[Split, str]:
    """The rows with what the start says of their answers, and its name in the cache, where the loss's settings do not matter.

    Args:
        split: prepared rows.
        task: of the rows.
        model: what training starts from, as the config says.
        build_start: gives that model.
        compute: device, and the precision of what the log-probabilities are to be compared with.
    """
    name, key = split.path.stem, prepared.key_of(split.path.parent)
    key["task"] = {setting: value for setting, value in key["task"].items() if setting not in OF_LOSS}
    key = {"reference_of": key, "split": name, "model": _identity(model)}
    key |= {"device": compute.device.type, "precision": compute.precision}

    def build(directory: Path) -> dict[str, Any]:
        start = build_start().to(compute.device).eval()
        prepared.write_split(directory, name, [_log_probs(start, task, split, compute)])
        return {}

    entry = prepared.open_or_build(key, build, cache_dir=cache_dir())
    numbers = {column: entry.splits[name].numbers(column) for column in REFERENCE}
    return split.with_numbers(numbers), entry.directory.name


def _log_probs(start: nn.Module, task: PreferenceTask, split: Split, compute: Compute) -> dict[str, np.ndarray]:
    found = {column: np.empty(split.num_rows) for column in REFERENCE}
    batches = evaluation_batches(split.lengths, BATCH_SIZE)
    with console.progress(f"reference of {split.path.stem}", total=split.num_rows, unit="pairs") as advance:
        for scores in score(start, ReferenceTask(task), split, batches, compute=compute, seed=0):
            for column, values in scores.outputs.items():
                found[column][scores.example_ids] = values
            advance(len(scores.example_ids))
    return found


def _identity(model: ModelConfig) -> dict[str, Any]:
    """What tells whether a model is the same: the content of its files, and how it computes.

    What an adapter of llmtune's stands on is told by a digest in its llmtune.json.
    """
    if model.type == "run":
        directories = [run_dir.locate_checkpoint(paths.resolve(model.path))]
        if adapters.is_adapter(directories[0]):
            directories.append(adapters.base_of(directories[0], model.base))
    else:
        directories = [locate(model.pretrained, model.revision)]
    files = [file for directory in directories for file in sorted(directory.iterdir()) if _is_of_model(file)]
    return {"files": [[file.name, _digest(file)] for file in files], "attention": getattr(model, "attention", None)}


def _is_of_model(file: Path) -> bool:
    return file.suffix in (".json", ".safetensors") and not file.name.startswith(NOT_OF_MODEL)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
