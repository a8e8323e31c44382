"""Keys of sampling that would do nothing are refused: before torch is imported where the command line alone decides."""

from collections.abc import Sequence

from llmtune.config.sections.generation import DRAWING, Sampling
from llmtune.errors import ConfigError


def refuse_idle(args: Sequence[str], *, temperature: float) -> None:
    """Complain of keys about drawing tokens where none are drawn.

    Raises:
        ConfigError: with one problem for each.
    """
    idle = [key for key in DRAWING if key in _written(args)] if temperature == 0 else []
    if idle:
        told = "acts where tokens are drawn, and temperature=0 always takes the likeliest one"
        raise ConfigError([f"{key}: {told}: leave it out, or set temperature=1" for key in idle])


def refuse_for(task_type: str, args: Sequence[str]) -> None:
    """Complain of all keys of sampling where no text is written.

    Raises:
        ConfigError: with one problem for each.
    """
    if idle := [key for key in Sampling.model_fields if key in _written(args)]:
        told = f"is for models that write text, and this one was trained for task={task_type}"
        raise ConfigError([f"{key}: {told}: leave it out" for key in idle])


def _written(args: Sequence[str]) -> set[str]:
    """The keys that a command line sets."""
    return {arg.lstrip("+").partition("=")[0] for arg in args if "=" in arg}
