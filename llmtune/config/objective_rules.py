"""What must hold between augmenters behind the text, objectives, and the other sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.augment_model import ModelAugment
from llmtune.config.sections.objective import LabelSmoothing

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig

ROW_TASKS = ("classification", "regression")
# Each of them decides how the model is run for a micro-batch, so that there can be one of them only.
PASSES = ("mixup", "word_mixup", "fgm", "r_drop")
ONCE = ("contextual", "label_smoothing", "l1", "l2")


def rules(config: "StageConfig") -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    task, model, tuning = config.task.type, config.model, config.tuning.type
    placed = {f"augment.{name}": section for name, section in config.augment.items()}
    placed |= {f"objective.{name}": section for name, section in config.objective.items()}
    passes = [key for key, section in placed.items() if section.type in PASSES]
    for key, section in placed.items():
        if not isinstance(section, ModelAugment) and section.type != "r_drop":
            continue
        yield (
            task not in ROW_TASKS,
            f"{key}: {section.type} is for task=classification and task=regression, not for {task}: leave it out (~{key})",
        )
    yield (
        len(passes) > 1,
        f"{passes[-1] if passes else ''}: only one of mixup, word_mixup, fgm and r_drop can decide how the model is run; there "
        f"are {' and '.join(passes)}: leave out all but one",
    )
    for key, section in placed.items():
        yield (
            isinstance(section, LabelSmoothing) and task != "classification",
            f"{key}: smooths classes, and task={task} has none: leave it out (~{key})",
        )
        yield (
            section.type == "fgm" and tuning == "head",
            f"{key}: moves word vectors, and tuning=head leaves all that reads them as it is: use tuning=full or lora, or "
            f"leave it out (~{key})",
        )
        yield (
            section.type == "fgm" and config.hardware.compile,
            f"{key}: goes back through the model twice, which a compiled one does not allow: set hardware.compile=false, or "
            f"leave it out (~{key})",
        )
        yield (
            section.type == "word_mixup" and tuning == "head",
            f"{key}: mixes word vectors, and tuning=head leaves all that reads them as it is: use augment=mixup, which mixes "
            "what the head reads",
        )
        yield (
            section.type == "r_drop" and _has_no_dropout(model),
            f"{key}: without dropout the two answers are the same: set model.dropout, or leave it out (~{key})",
        )
        again = [other for other, entry in placed.items() if other != key and entry.type == section.type in ONCE]
        yield (
            bool(again) and key > again[0],
            f"{key}: there is another {section.type}, {again[0] if again else ''}: leave out one of them",
        )


def _has_no_dropout(model: object) -> bool:
    """Whether the config says so; weights from elsewhere have the dropout that they were trained with."""
    return getattr(model, "dropout", None) == 0 and not getattr(model, "recurrent_dropout", 0)
