"""What `average` is asked for."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Name, RunName, Section
from llmtune.config.sections.training import EvaluationConfig, HardwareConfig


class AverageConfig(Section):
    """Config of `average`."""

    runs: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Runs or checkpoints to average (the words after the verb); a single run: the checkpoints that it has kept."""
    how: Literal["uniform", "greedy"]
    """uniform: the mean of all; greedy: from the best on, each that does not make the validation metric worse."""
    run_name: RunName
    """Folder of the new run below output_dir."""
    output_dir: Name
    """Folder that holds all runs."""
    hardware: HardwareConfig
    evaluation: EvaluationConfig
