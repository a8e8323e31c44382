"""The table of tasks: each built once from the train rows, and rebuilt from what a run tells of itself."""

from pathlib import Path
from typing import Any

from llmtune.config.sections.model import CHATS
from llmtune.errors import CheckpointError
from llmtune.models.spec import ModelSpec
from llmtune.tasks.base import Task
from llmtune.tasks.classification import ClassificationTask
from llmtune.tasks.inputs import NumericInputs, RowInputs, TextRows
from llmtune.tasks.instruction import InstructionTask
from llmtune.tasks.language_modeling import CausalLmTask, MaskedLmTask
from llmtune.tasks.multilabel import MultilabelTask
from llmtune.tasks.preference import PreferenceTask
from llmtune.tasks.preference_losses import Settings
from llmtune.tasks.regression import RegressionTask
from llmtune.tasks.tagging import TaggingTask
from llmtune.tasks.text import TextInputs


def rebuild(description: dict[str, Any], tokenizer_dir: Path | None) -> Task:
    """The task that `description` (of `Task.describe()`) tells of.

    Raises:
        CheckpointError: the description is of no task that this version knows, or lacks a key.
    """
    try:
        match description["type"]:
            case "classification":
                names, bias = description["label_names"], description.get("label_bias")
                return ClassificationTask(_row_inputs(description, tokenizer_dir), label_names=names, label_bias=bias)
            case "regression":
                inputs = _row_inputs(description, tokenizer_dir)
                return RegressionTask(inputs, target_mean=description["target_mean"], target_std=description["target_std"])
            case "multilabel":
                inputs = _row_inputs(description, tokenizer_dir)
                names, threshold = description["label_names"], description["threshold"]
                return MultilabelTask(inputs, label_names=names, threshold=threshold, label_bias=description.get("label_bias"))
            case "tagging":
                return TaggingTask(_text(description, tokenizer_dir), label_names=description["label_names"])
            case "causal_lm":
                apart = description.get("isolate_documents", False)
                text = _text(description, tokenizer_dir)
                return CausalLmTask(text, end_of_text=description["end_of_text"], isolate_documents=apart)
            case "masked_lm":
                names = ("mask_probability", "mask_token_id", "special_ids", "vocab_size")
                return MaskedLmTask(_text(description, tokenizer_dir), **{k: description[k] for k in names})
            case "instruction":
                own = {name: description[name] for name in InstructionTask.described}
                return InstructionTask(_text(description, tokenizer_dir), **own)
            case "preference":
                own = {name: description[name] for name in PreferenceTask.described}
                settings = Settings(*(description[name] for name in ("beta", "label_smoothing", "margin")))
                return PreferenceTask(_text(description, tokenizer_dir), settings=settings, **own)
    except KeyError as e:
        raise CheckpointError(f"the task description lacks {e}", remedy="use a run of this version of llmtune") from None
    raise CheckpointError(f"unknown task {description['type']!r}", remedy="use a newer version of llmtune")


def model_spec(description: dict[str, Any], tokenizer_facts: dict[str, Any]) -> ModelSpec:
    """What a model has to offer for a task.

    Args:
        description: of `Task.describe()`.
        tokenizer_facts: `vocab_size`, `pad_token_id`, `bos_token_id`, `eos_token_id`; empty for numeric rows.
    """
    return ModelSpec(
        task="causal_lm" if description["type"] in CHATS else description["type"],
        label_names=tuple(description.get("label_names", ())),
        vocab_size=tokenizer_facts.get("vocab_size", 0),
        pad_token_id=tokenizer_facts.get("pad_token_id"),
        bos_token_id=tokenizer_facts.get("bos_token_id"),
        eos_token_id=tokenizer_facts.get("eos_token_id"),
        end_ids=tuple(description.get("end_ids", ())),
        max_length=description.get("max_length", 0),
        num_features=len(description.get("feature_names", ())),
        feature_mean=tuple(description.get("feature_mean", ())),
        feature_std=tuple(description.get("feature_std", ())),
        target_mean=description.get("target_mean", 0.0),
        target_std=description.get("target_std", 1.0),
    )


def _row_inputs(description: dict[str, Any], tokenizer_dir: Path | None) -> RowInputs:
    if "feature_names" in description:
        names, mean, std = (description[k] for k in ("feature_names", "feature_mean", "feature_std"))
        return NumericInputs(names=names, mean=mean, std=std)
    return TextRows(_text(description, tokenizer_dir))


def _text(description: dict[str, Any], tokenizer_dir: Path | None) -> TextInputs:
    names = ("max_length", "pad_token_id", "token_types", "has_pairs")
    return TextInputs(tokenizer_dir, **{name: description[name] for name in names})
