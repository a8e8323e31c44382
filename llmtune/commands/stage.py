"""One training stage from its config to a finished run directory: what train, finetune and run have in common."""

import contextlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import llmtune
from llmtune import console, tuning
from llmtune.config.schema import METRICS, StageConfig
from llmtune.data import prepared, sources
from llmtune.data.augment import registry as augmenters
from llmtune.data.prepared import Prepared, Split
from llmtune.errors import DataError
from llmtune.evaluation.evaluate import evaluate
from llmtune.models import registry as models
from llmtune.randomness import draw_key
from llmtune.tasks import registry as tasks
from llmtune.tasks.prepare import Origin, encode_rows, load_rows, prepare, task_of, tokenizer_dir_of
from llmtune.training import precision, run_dir
from llmtune.training.checkpoint import State, read_json
from llmtune.training.distributed import Ranks
from llmtune.training.precision import Compute
from llmtune.training.restore import Restored, build_base, frozen_digest
from llmtune.training.trainer import Trainer


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
        origin=_origin(config),
        seed=config.seed,
        cache_dir=cache_dir() / "prepared",
    )


def prepare_file(file: str, trained: StageConfig, restored: Restored) -> Split:
    """Another file's rows, read as the run's data was and encoded for its task."""
    data = trained.data
    if data.type != "files":
        raise DataError("the run's data came from the hub: a file cannot be read the same way", remedy="leave out file=")
    source = data.model_copy(update={"train_file": file, "validation_file": None, "test_file": None, "where": {}, "max_rows": None})
    task = restored.task()
    key = {"inputs": sources.fingerprint(source), "data": source.model_dump(mode="json"), "task": task.describe(), "of": str(restored.directory)}

    def build(directory: Path) -> dict[str, Any]:
        table = load_rows(source, need_label=trained.task.type in ("classification", "regression"), seed=trained.seed)["train"]
        prepared.write_split(directory, "test", encode_rows(task, table))
        return {}

    return prepared.open_or_build(key, build, cache_dir=cache_dir() / "prepared").splits["test"]


def train_stage(config: StageConfig, run: Path, ranks: Ranks) -> dict[str, Any]:
    """Train to the end in `run`, whose config.yaml is written; returns what result.json holds."""
    precision.set_up(config.hardware, exact=config.training.exact)
    with run_dir.Lock(run) if ranks.is_main else contextlib.nullcontext():
        ready = ranks.main_first(lambda: prepare_stage(config))
        is_transformer = config.model.type not in ("lstm", "mlp")
        compute = precision.choose(config.hardware, precision=config.hardware.precision, is_transformer=is_transformer)
        return _trainer(config, run, ready, compute, ranks).fit()


def _trainer(config: StageConfig, run: Path, ready: Prepared, compute: Compute, ranks: Ranks) -> Trainer:
    task = task_of(ready)
    if config.augment:
        task_text(task).augmenter = augmenters.build(config.augment)
    spec = tasks.model_spec(ready.meta["task"], ready.meta["tokenizer"])
    torch.manual_seed(draw_key(config.seed, "init"))
    model = tuning.apply(build_base(config.model, spec), config.tuning).to(compute.device)
    _tell_size(model, config, compute)
    best_metric = config.training.best_metric or next(iter(METRICS[config.task.type]))
    return Trainer(
        run=run,
        model=model,
        task=task,
        split=ready.splits["train"],
        evaluate=_validation(config, ready, model, task, ranks),
        best_metric=best_metric,
        higher_is_better=METRICS[config.task.type][best_metric],
        make_state=_state_maker(config, ready, model),
        fingerprint=_fingerprint(config, ready, compute, ranks),
        training=config.training,
        optimizer_config=config.optimizer,
        schedule=config.schedule,
        compute=compute,
        ranks=ranks,
        seed=config.seed,
        num_workers=config.hardware.num_workers,
        compiled=torch.compile(model, dynamic=True) if config.hardware.compile else None,
    )


def task_text(task: Any) -> Any:
    """The text side of a task, wherever it keeps it."""
    return task.text if hasattr(task, "text") else task.inputs.text


def _validation(config: StageConfig, ready: Prepared, model: Any, task: Any, ranks: Ranks):
    if "validation" not in ready.splits:
        console.notice("there are no validation rows: the last checkpoint counts as the best")
        return None
    is_transformer = config.model.type not in ("lstm", "mlp")
    scoring = precision.choose(config.hardware, precision=config.evaluation.precision, is_transformer=is_transformer)
    known = METRICS[config.task.type]

    how = {"batch_size": config.evaluation.batch_size, "compute": scoring, "seed": config.seed, "ranks": ranks}

    def scored(is_stopping: Callable[[], bool]) -> dict[str, Any] | None:
        found = evaluate(model, task, ready.splits["validation"], is_stopping=is_stopping, **how)
        return found and {name: value for name, value in found.metrics.items() if name in known}

    return scored


def _state_maker(config: StageConfig, ready: Prepared, model: Any) -> partial[State]:
    """The part of a checkpoint that is the same at every step, and access to the weights."""
    is_full = config.tuning.type == "full"
    facts = {
        "llmtune": llmtune.__version__,
        "task": ready.meta["task"],
        "tokenizer": ready.meta["tokenizer"],
        "tuning": config.tuning.model_dump(mode="json"),
        "model": _portable(config.model.model_dump(mode="json")),
    }
    if is_full:
        save_model, learned = partial(_save_pretrained, model), {}
    else:
        facts["base_digest"] = frozen_digest(model)
        save_model, learned = None, {name: p for name, p in model.named_parameters() if p.requires_grad}
    return partial(State, save_model, learned, facts, tokenizer_dir_of(ready))


def _save_pretrained(model: Any, directory: Path) -> None:
    model.save_pretrained(directory)


def _portable(model: dict[str, Any]) -> dict[str, Any]:
    """Paths that still hold when the command is given elsewhere."""
    for key in ("pretrained", "path"):
        if model.get(key) and Path(model[key]).exists():
            model[key] = str(Path(model[key]).resolve())
    return model


def _origin(config: StageConfig) -> Origin:
    """What the model of the config brings along."""
    if config.model.type == "run":
        directory = run_dir.locate_checkpoint(Path(config.model.path))
        facts = read_json(directory / "llmtune.json") if (directory / "llmtune.json").is_file() else {}
        limit = facts.get("task", {}).get("max_length") or _longest_input(directory)
        has_tokenizer = (directory / "tokenizer_config.json").is_file()
        return Origin(directory if has_tokenizer else None, limit, facts.get("task"))
    if getattr(config.model, "pretrained", None):
        located = models.locate(config.model.pretrained, config.model.revision)
        return Origin(located, _longest_input(located))
    return Origin()


def _longest_input(directory: Path) -> int | None:
    """Tokens that a model directory can read: the smaller of what its config and its tokenizer say."""
    limits = []
    for file, keys in (("config.json", ("max_position_embeddings", "n_positions")), ("tokenizer_config.json", ("model_max_length",))):
        content = json.loads((directory / file).read_text(encoding="utf-8")) if (directory / file).is_file() else {}
        limits += [int(content[k]) for k in keys if isinstance(content.get(k), (int, float)) and content[k] < 1_000_000]
    return min(limits, default=None)


def _fingerprint(config: StageConfig, ready: Prepared, compute: Compute, ranks: Ranks) -> dict[str, Any]:
    """What a resumed run must share with its beginning to go on bit for bit."""
    import transformers

    training = config.training.model_dump(mode="json", include={"batch_size", "max_tokens_per_batch", "gradient_accumulation_steps", "group_by_length"})
    return {
        "seed": config.seed,
        "data": ready.directory.name,
        **training,
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "device": compute.device.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "precision": compute.precision,
        "compile": config.hardware.compile,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _tell_size(model: Any, config: StageConfig, compute: Compute) -> None:
    total = sum(p.numel() for p in model.parameters())
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = "" if learned == total else f", {learned:,} of them learn ({config.tuning.type})"
    console.notice(f"{config.model.type}: {total:,} weights{share}; {compute.device.type}, {compute.precision}")
