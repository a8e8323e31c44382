"""The rows of a config, prepared now or before. Nothing here imports torch unless there is something to prepare."""

from pathlib import Path
from typing import Any

from llmtune import paths
from llmtune.config.schema import StageConfig
from llmtune.config.sections.model import ModelConfig
from llmtune.data import prepared
from llmtune.data.preparation import Origin, Preparation
from llmtune.data.prepared import Prepared
from llmtune.errors import ModelError
from llmtune.models import adapters, checks
from llmtune.models.location import locate
from llmtune.training import run_dir
from llmtune.training.manifest import read_json


def cache_dir() -> Path:
    """Where prepared data lies."""
    return paths.cache_dir("prepared")


def prepare_stage(config: StageConfig) -> Prepared:
    """The stage's rows of all splits, from the cache if nothing has changed since.

    Raises:
        DataError: the rows cannot serve the task.
        ModelError: the model's tokenizer is unfit, or its longest input is exceeded.
    """
    wanted = preparation_of(config)

    def build(directory: Path) -> dict[str, Any]:
        from llmtune.tasks import prepare

        return prepare.build(wanted, directory)

    return prepared.open_or_build(wanted.key, build, cache_dir=cache_dir())


def preparation_of(config: StageConfig) -> Preparation:
    """What decides about the stage's rows.

    Raises:
        ModelError: the model that training starts from is missing or broken.
    """
    return Preparation(
        config.data,
        config.split,
        config.tokenizer,
        config.task,
        config.model,
        _origin(config.model),
        config.seed,
        config.clean,
    )


def _origin(model: ModelConfig) -> Origin:
    """What the model of a config brings along."""
    if model.type == "run":
        directory = run_dir.locate_checkpoint(paths.resolve(model.path))
        facts = read_json(directory / "llmtune.json") if (directory / "llmtune.json").is_file() else {}
        base = adapters.base_of(directory, model.base) if adapters.is_adapter(directory) else directory
        limit = facts.get("task", {}).get("max_length") or _longest_input(base)
        with_tokenizer = [place for place in (directory, base) if (place / "tokenizer_config.json").is_file()]
        return Origin(with_tokenizer[0] if with_tokenizer else None, limit, facts.get("task"))
    if getattr(model, "pretrained", None):
        located = locate(model.pretrained, model.revision)
        checks.read_config(located)  # what is wrong with the model comes before its tokenizer
        return Origin(located, _longest_input(located))
    return Origin()


def _longest_input(directory: Path) -> int | None:
    """Tokens that a model directory can read: the smaller of what its config and its tokenizer say."""
    limits = []
    for file, keys in (
        ("config.json", ("max_position_embeddings", "n_positions")),
        ("tokenizer_config.json", ("model_max_length",)),
    ):
        content = read_json(directory / file) if (directory / file).is_file() else {}
        if not isinstance(content, dict):
            raise ModelError(f"{file} holds no JSON object", where=str(directory / file), remedy="save it again")
        limits += [int(content[k]) for k in keys if isinstance(content.get(k), (int, float)) and content[k] < 1_000_000]
    return min(limits, default=None)
