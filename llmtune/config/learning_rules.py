"""What must hold between optimizer, schedule, averaging, and the length of the run."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.tuning import ADAPTERS

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig


def rules(config: "StageConfig") -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    optimizer, schedule, max_steps = config.optimizer, config.schedule, config.training.max_steps
    warmup_steps = getattr(schedule, "warmup_steps", None)
    yield (
        max_steps is not None and (warmup_steps or 0) > max_steps,
        f"schedule.warmup_steps: the warm-up ({warmup_steps} steps) is longer than the run (training.max_steps={max_steps})",
    )
    warmup_ratio = getattr(schedule, "warmup_ratio", 0.0)
    if warmup_steps is not None:
        warmup_ratio = min(1.0, warmup_steps / max_steps) if max_steps else 0.0
    decay_ratio = getattr(schedule, "decay_ratio", 0.0)
    yield (
        warmup_ratio + decay_ratio > 1,
        f"schedule.decay_ratio: warm-up ({warmup_ratio:g} of the steps) and decay ({decay_ratio:g}) together are longer than "
        "the run: lower one of them",
    )
    has_warmup = warmup_steps != 0 if warmup_steps is not None else warmup_ratio > 0
    yield (
        schedule.type == "inverse_sqrt" and schedule.timescale is None and not has_warmup,
        "schedule.timescale: is null, which means the length of the warm-up, and there is none: set it, or "
        "schedule.warmup_steps",
    )
    yield (
        optimizer.type == "schedule_free" and schedule.type != "constant",
        f"schedule: {schedule.type} lowers the rate, and optimizer=schedule_free averages the weights instead: use "
        "schedule=constant, with schedule.warmup_ratio if you like",
    )
    yield (
        optimizer.type == "schedule_free" and config.averaging.type != "none",
        "averaging: optimizer=schedule_free averages the weights itself: use averaging=none",
    )
    yield (
        optimizer.type == "muon" and config.tuning.type in ("head", *ADAPTERS),
        f"optimizer: muon is for matrices of the layers, and tuning={config.tuning.type} keeps them as they are: use "
        "optimizer=adamw",
    )
    layer_drop = config.training.layer_drop
    yield (
        layer_drop > 0 and config.model.type in ("lstm", "mlp"),
        f"training.layer_drop: needs a transformers model, and model={config.model.type} is none",
    )
    yield (
        layer_drop > 0 and config.hardware.compile,
        "training.layer_drop: leaves out other layers in each pass, and a compiled model has them all: set "
        "hardware.compile=false, or training.layer_drop=0",
    )
    yield (
        optimizer.type == "sgd" and optimizer.nesterov and not optimizer.momentum,
        "optimizer.nesterov: needs momentum: set optimizer.momentum, or optimizer.nesterov=false",
    )
