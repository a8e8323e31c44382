"""What must hold between `tuning` and the other sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.tuning import ADAPTERS, GradualTuning, PatternTuning, Virtual

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig, TrainConfig


def rules(config: "StageConfig", *, is_pretrained: bool) -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    tuning, model, task, training = config.tuning, config.model, config.task, config.training
    has_no_adapters = tuning.type in ADAPTERS and model.type in ("lstm", "mlp")
    yield (
        has_no_adapters,
        f"tuning: {tuning.type} needs a transformers model, and model={model.type} is none: use tuning=full",
    )
    yield (
        tuning.type not in ("full", "layerwise") and not is_pretrained and not has_no_adapters,
        f"tuning: {tuning.type} keeps most weights as they are, and model={model.type} starts with random ones: "
        "set model.pretrained, or use tuning=full",
    )
    if isinstance(tuning, GradualTuning):
        yield from _gradual_rules(tuning)
        yield (
            config.hardware.compile,
            "hardware.compile: a compiled model would have to be compiled anew at each opening of tuning=gradual: set it to "
            "false",
        )
    yield (
        tuning.type == "qlora" and config.hardware.compile,
        "hardware.compile: weights of tuning=qlora are made of 4 bits at each use, and not compiled: set it to false",
    )
    if isinstance(tuning, PatternTuning):
        yield (
            tuning.learn == ("*",) and not tuning.freeze,
            "tuning.freeze: is empty, and tuning.learn takes every weight: name some, such as "
            "'tuning.freeze=[\"*embeddings*\"]', or use tuning=full",
        )
    if isinstance(tuning, Virtual):
        yield (
            task.type == "masked_lm",
            f"tuning: {tuning.type} is nothing that peft offers for task=masked_lm: use tuning=lora or ia3",
        )
        yield (
            tuning.type == "prompt" and model.type == "gpt" and task.type not in ("causal_lm", "tagging"),
            f"tuning: prompt hides from model=gpt where a text ends, which task={task.type} has to know: use tuning=prefix",
        )
        yield (
            getattr(task, "isolate_documents", False),
            f"task.isolate_documents: counts positions by the row, which tuning={tuning.type} would move: set it to false, "
            "or use tuning=lora",
        )
        yield (
            training.activation_checkpointing,
            f"training.activation_checkpointing: does not go with tuning={tuning.type}, whose keys and values it would drop: "
            "leave it out, or use tuning=lora",
        )


def _gradual_rules(tuning: GradualTuning) -> Iterator[tuple[bool, str]]:
    shares = tuning.open_at or ()
    yield (
        (tuning.open_every is None) == (tuning.open_at is None),
        f"tuning.open_at: is {'null' if tuning.open_at is None else 'set'}, and so is tuning.open_every: set one of them, "
        "and the other to null",
    )
    yield (
        tuning.open_at is not None and (not shares or list(shares) != sorted(set(shares))),
        "tuning.open_at: takes shares of the run in rising order, such as [0.2, 0.4, 0.6]",
    )


def of_exports(config: "TrainConfig") -> list[str]:
    """What is wrong with the exports of `run`: virtual tokens are no weights of the model itself."""
    last = config.finetune or config
    if not isinstance(last.tuning, Virtual):
        wrong = [] if last.tuning.type in ADAPTERS else [n for n, export in config.export.items() if export.type == "adapter"]
        return [f"export.{name}: tuning={last.tuning.type} makes no adapter: use export=huggingface" for name in wrong]
    return [
        f"export.{name}: virtual tokens cannot be merged into the weights that {export.type} holds: use export=adapter"
        for name, export in config.export.items()
        if export.type != "adapter"
    ]
