"""The rows that a verb works on: those of a config, those that a run was trained with, or those of another file."""

import os
from pathlib import Path
from typing import Any

import llmtune
from llmtune import paths
from llmtune.config.schema import StageConfig
from llmtune.config.sections.data import DataConfig, FilesData
from llmtune.config.sections.model import ModelConfig
from llmtune.config.store import Library
from llmtune.data import prepared, sources
from llmtune.data.prepared import Prepared, Split
from llmtune.errors import DataError, ModelError
from llmtune.models import checks
from llmtune.models import registry as models
from llmtune.tasks.prepare import Origin, encode_rows, load_rows, prepare
from llmtune.training import run_dir
from llmtune.training.checkpoint import read_json
from llmtune.training.manifest import sha256
from llmtune.training.restore import Restored


def cache_dir() -> Path:
    """Where prepared data lies: $LLMTUNE_CACHE, else the user's cache folder."""
    if folder := os.environ.get("LLMTUNE_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmtune"


def prepare_stage(config: StageConfig) -> Prepared:
    """The stage's rows, prepared now or before."""
    return prepare(
        config.data,
        split=config.split,
        tokenizer=config.tokenizer,
        task=config.task,
        model=config.model,
        origin=_origin(config.model),
        seed=config.seed,
        cache_dir=cache_dir() / "prepared",
    )


def of_run(trained: StageConfig, restored: Restored) -> Prepared:
    """The rows that a model was trained with: from the cache, else prepared anew from the same files.

    Raises:
        DataError: they are no longer in the cache and the files have changed, so that other rows would pass for them.
    """
    known = restored.facts.get("data", {})
    found = prepared.find(known["prepared"], cache_dir=cache_dir() / "prepared") if known else None
    if found is not None:
        return found
    ready = prepare_stage(trained)
    if ready.meta["task"] != restored.facts.get("task") or (known and prepared.inputs_of(ready) != known["inputs"]):
        raise DataError(
            "the data is not what the model was trained with",
            where=str(restored.directory),
            remedy="bring the old files back, train again, or evaluate on a file: file=...",
        )
    return ready


def of_file(file: str, trained: StageConfig, restored: Restored) -> Split:
    """Another file's rows, read as the run's data was and encoded for its task."""
    source = file_like(trained.data, file)
    task = restored.task()
    tokenizer = restored.directory / "tokenizer.json"
    key = {
        "llmtune": llmtune.__version__,
        "inputs": sources.fingerprint(source),
        "data": source.model_dump(mode="json"),
        "task": task.describe(),
        "tokenizer": sha256(tokenizer) if tokenizer.is_file() else None,
    }

    def build(directory: Path) -> dict[str, Any]:
        table = load_rows(source, need_label=trained.task.type in ("classification", "regression"), seed=trained.seed)["train"]
        prepared.write_split(directory, "test", encode_rows(task, table))
        return {}

    return prepared.open_or_build(key, build, cache_dir=cache_dir() / "prepared").splits["test"]


def file_like(data: DataConfig, file: str) -> FilesData:
    """A file with the columns of a run's data, all its rows; read as its ending says, tables of text as the run's were."""
    packaged = Library("train", None).option_of_type("data", "files")
    own = {name: getattr(data, name) for name in FilesData.model_fields if name != "type" and hasattr(data, name)}
    kind = sources.ENDINGS.get(Path(file.removesuffix(".gz")).suffix)
    if kind not in (None, "csv", "tsv"):
        own |= {name: packaged[name] for name in ("delimiter", "quoting", "column_names")}
    if kind is not None:
        own["format"] = "auto"
    changes = {"train_file": file, "validation_file": None, "test_file": None, "where": {}, "max_rows": None}
    return FilesData.model_validate({**packaged, **own, **changes}, strict=False)


def _origin(model: ModelConfig) -> Origin:
    """What the model of a config brings along."""
    if model.type == "run":
        directory = run_dir.locate_checkpoint(paths.resolve(model.path))
        facts = read_json(directory / "llmtune.json") if (directory / "llmtune.json").is_file() else {}
        limit = facts.get("task", {}).get("max_length") or _longest_input(directory)
        has_tokenizer = (directory / "tokenizer_config.json").is_file()
        return Origin(directory if has_tokenizer else None, limit, facts.get("task"))
    if getattr(model, "pretrained", None):
        located = models.locate(model.pretrained, model.revision)
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
