"""Training stages built in the process of a benchmark, so that several of them can take turns step by step."""

from collections.abc import Iterator
from pathlib import Path

from llmtune.commands import stage
from llmtune.commands.preparing import prepare_stage
from llmtune.config.compose import compose
from llmtune.training import precision
from llmtune.training.distributed import Ranks
from llmtune.training.loop import StepResult
from llmtune.training.plan import window
from llmtune.training.trainer import Trainer


def trainer_of(scratch: Path, *overrides: str) -> Trainer:
    """The stage that `llmtune train` would run with these overrides, on the CPU; `scratch` is its run directory."""
    config = compose("train", [*overrides, "hardware=cpu"]).config
    precision.set_up(config.hardware, exact=config.training.exact)
    is_transformer = config.model.type not in ("lstm", "mlp")
    compute = precision.choose(config.hardware, precision=config.hardware.precision, is_transformer=is_transformer)
    ready = prepare_stage(config)
    model = stage._model(config, ready, compute)
    return stage._trainer(config, scratch, ready, None, (), model, compute, Ranks(config.hardware))


def steps(trainer: Trainer, num_steps: int) -> Iterator[StepResult]:
    """The first steps of the run; the rows are made ready before the clock of each starts."""
    cuts = trainer.training.gradient_accumulation_steps
    cut = {"seed": trainer.seed, "num_micro_batches": cuts, "ranks": trainer.ranks}
    planned = [step for step, _ in zip(trainer.plan.steps(0), range(num_steps), strict=False)]
    loader = [window(step, trainer.split, trainer.task, **cut) for step in planned]
    return trainer.steps_over(loader, trainer.called(), lambda: False)
