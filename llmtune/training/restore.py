"""From a checkpoint or model directory back to a model, its task and its tokenizer."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

from llmtune import paths, tuning
from llmtune.config.sections.model import ModelConfig, TuningConfig
from llmtune.data.clean import registry as cleaners
from llmtune.data.clean.registry import Cleaner
from llmtune.errors import CheckpointError
from llmtune.models import registry as models
from llmtune.models.spec import ModelSpec
from llmtune.tasks import registry as tasks
from llmtune.tasks.base import Task
from llmtune.training import checkpoint, manifest, run_dir


@dataclass(frozen=True)
class Restored:
    """A model with what it was trained for.

    Attributes:
        model: on the CPU, adapters merged.
        directory: where it was read from.
        facts: llmtune.json: task, tokenizer facts, cleaning, tuning; and `thresholds`, if the decision was moved after
            training. Empty for a directory that llmtune did not write.
    """

    model: nn.Module
    directory: Path
    facts: dict[str, Any]

    @property
    def tokenizer_dir(self) -> Path | None:
        return self.directory if (self.directory / "tokenizer_config.json").is_file() else None

    def task(self) -> Task:
        """The task it was trained for.

        Raises:
            CheckpointError: the directory does not say.
        """
        if "task" not in self.facts:
            raise CheckpointError(
                "the directory does not say what the model was trained for",
                where=str(self.directory),
                remedy="name a run or an export of llmtune, or fine-tune the model first: llmtune finetune model.path=...",
            )
        return tasks.rebuild(self.facts["task"], self.tokenizer_dir)

    def cleaner(self) -> Cleaner:
        """What changed the texts that it was trained on; texts that it is to judge have to be changed alike.

        Raises:
            CheckpointError: this version knows no such cleaner.
        """
        try:
            return cleaners.rebuild(self.facts.get("clean", []))
        except ValueError:
            raise CheckpointError(
                "the texts were cleaned in a way that this version does not know",
                where=str(self.directory / "llmtune.json"),
                remedy="use a newer version of llmtune",
            ) from None


def restore(path: str | Path, *, which: str = "best", task: str | None = None) -> Restored:
    """Read a run, a checkpoint or a model directory.

    Args:
        path: of it.
        which: checkpoint of a run.
        task: that the model is wanted for; parts of the body that only its head reads are kept for it.

    Raises:
        CheckpointError: it is damaged, incomplete or no such thing.
        ModelError: its weights or config are unfit.
    """
    directory = run_dir.locate_checkpoint(paths.resolve(str(path)), which)
    if (directory / manifest.NAME).is_file():
        checkpoint.verify(directory)
    facts = _facts(directory)
    if (directory / checkpoint.LEARNED).is_file():
        return Restored(_with_learned(directory, facts), directory, facts)
    return Restored(models.load(directory, task=task), directory, facts)


def _facts(directory: Path) -> dict[str, Any]:
    if not (directory / "llmtune.json").is_file():
        return {}
    facts = manifest.read_json(directory / "llmtune.json")
    if not (directory / checkpoint.THRESHOLDS).is_file():
        return facts
    moved = manifest.read_json(directory / checkpoint.THRESHOLDS)
    bias = {"label_bias": moved["label_bias"]} if any(moved["label_bias"]) else {}
    return {**facts, "task": {**facts["task"], **bias}, "thresholds": moved}


def build_base(model: ModelConfig, spec: ModelSpec) -> nn.Module:
    """The model that a stage starts from; new weights come from torch's global generator."""
    if model.type == "run":
        return models.adapt(restore(model.path, task=spec.task).model, spec)
    return models.build(model, spec)


def frozen_digest(model: nn.Module) -> str:
    """sha256 over the weights that do not learn: a checkpoint of the others is only good on top of these."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_learned(directory: Path, facts: dict[str, Any]) -> nn.Module:
    config: ModelConfig = TypeAdapter(ModelConfig).validate_python(facts["model"], strict=False)
    opened: TuningConfig = TypeAdapter(TuningConfig).validate_python(facts["tuning"], strict=False)
    base = build_base(config, tasks.model_spec(facts["task"], facts["tokenizer"]))
    model = tuning.apply(base, opened)
    if frozen_digest(model) != facts["base_digest"]:
        raise CheckpointError(
            "the weights that this checkpoint builds on have changed",
            where=str(directory),
            remedy=f"bring back the original of {getattr(config, 'path', None) or getattr(config, 'pretrained', None)}",
        )
    checkpoint.load_learned(model, checkpoint.read_tensors(directory / checkpoint.LEARNED))
    return tuning.merged(model)
