"""The errors a user can meet. Each carries the exit code that scripts may rely on."""

from collections.abc import Sequence


class LlmtuneError(Exception):
    """What is wrong, where, and what to do about it.

    Args:
        message: one or more complete sentences for the user.
        where: the place at fault: `path:line`, a row and column, or a config key.
        remedy: what the user can do.
    """

    exit_code = 1
    title = "Error"

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None):
        super().__init__(message)
        self.message, self.where, self.remedy = message, where, remedy

    def __str__(self) -> str:
        lines = [self.message]
        if self.where:
            lines.append(f"at: {self.where}")
        if self.remedy:
            lines.append(f"try: {self.remedy}")
        return "\n".join(lines)


class ConfigError(LlmtuneError):
    """All the mistakes of a config or command line, told at once.

    Args:
        problems: one text a mistake, each with its place and remedy.
    """

    exit_code = 2
    title = "Config"

    def __init__(self, problems: Sequence[str]):
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


class UsageError(LlmtuneError):
    """The command line itself is off: an unknown verb, a missing argument."""

    exit_code = 2
    title = "Usage"


class DataError(LlmtuneError):
    """The data cannot be read, or cannot serve the task."""

    exit_code = 3
    title = "Data"


class ModelError(LlmtuneError):
    """A model directory, its tokenizer or its weights are unfit."""

    exit_code = 4
    title = "Model"


class CheckpointError(LlmtuneError):
    """A checkpoint or run directory is missing, damaged or belongs to another run."""

    exit_code = 4
    title = "Checkpoint"


class ResourceError(LlmtuneError):
    """The machine lacks something: disk, memory, a device, a lock, an optional package."""

    exit_code = 5
    title = "Resource"


class DivergedError(LlmtuneError):
    """A loss or gradient is no longer a finite number.

    Args:
        rows: the examples of the step.
    """

    exit_code = 6
    title = "Diverged"

    def __init__(self, message: str, *, rows: Sequence[int] = (), where: str | None = None, remedy: str | None = None):
        super().__init__(message, where=where, remedy=remedy)
        self.rows = list(rows)


class Interrupted(LlmtuneError):
    """A signal ended the run after its state was saved; `exit_code` says which signal."""

    title = "Interrupted"

    def __init__(self, message: str, *, exit_code: int, remedy: str | None = None):
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code
