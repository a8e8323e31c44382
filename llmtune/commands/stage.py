"""One training stage from its config to a finished run directory: what train, finetune and run have in common."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import llmtune
from llmtune import console, paths, tuning
from llmtune.commands import accounts, deciding, stage_objectives, stage_reference, weights_table
from llmtune.commands.preparing import prepare_stage
from llmtune.config import saved
from llmtune.config.metrics import METRICS
from llmtune.config.schema import StageConfig
from llmtune.config.sections.balance import CLASSIFIERS
from llmtune.config.sections.model import ModelConfig
from llmtune.config.sections.tuning import LEARN_ALL
from llmtune.data import prepared
from llmtune.data.augment import registry as augmenters
from llmtune.data.batches import evaluation_batches
from llmtune.data.clean import registry as cleaners
from llmtune.data.prepared import Prepared
from llmtune.errors import ConfigError, ModelError
from llmtune.evaluation.evaluate import evaluate
from llmtune.evaluation.evaluate import score as score_batches
from llmtune.models import layer_drop
from llmtune.models.heads import new_weights
from llmtune.randomness import draw_key
from llmtune.tasks import balancing
from llmtune.tasks import registry as tasks
from llmtune.tasks.language_modeling import require_isolation
from llmtune.tasks.prepare import task_of, tokenizer_dir_of
from llmtune.training import gelu, low_rank, openings, optimizers, parameter_groups, precision, rotary, run_dir
from llmtune.training.checkpoint import State
from llmtune.training.distributed import Ranks
from llmtune.training.forecast import Forecast, forecast, remedies
from llmtune.training.lowered import Lowered
from llmtune.training.manifest import read_json
from llmtune.training.precision import Compute
from llmtune.training.restore import start
from llmtune.training.trainer import Trainer
from llmtune.tuning import frozen


def train_stage(
    config: StageConfig, ranks: Ranks, *, find: Callable[[Prepared], Path | None], create: Callable[[], Path]
) -> tuple[dict[str, Any], Path]:
    """Train to the end; returns what result.json holds, and the run directory.

    Nothing is written before device, data and model are known to be fit.

    Args:
        config: of the stage.
        ranks: the processes that share the work.
        find: the run directory to go on with, if there is one; a finished one is left as it is.
        create: makes a new one, config.yaml included.
    """
    precision.set_up(config.hardware, exact=config.training.exact)
    compute = precision.choose(
        config.hardware, precision=config.hardware.precision, is_transformer=_is_transformer(config.model)
    )
    augmenters.require(config.augment)
    optimizers.require(config.optimizer)
    ready = ranks.main_first(lambda: _rows(config))
    found = ranks.from_main(lambda: _text(find(ready)))
    if found is not None and run_dir.is_finished(Path(found)):
        console.notice(f"training is done: {found}")
        return run_dir.read_result(Path(found)), Path(found)
    variants = ranks.main_first(lambda: stage_objectives.prepare_variants(config, ready))
    how = {"train": compute, "evaluate": _scoring(config)}
    ready, references = ranks.main_first(lambda: stage_reference.of_stage(config.model, ready, task_of(ready), **how))
    model = _model(config, ready, compute)
    run = Path(found or ranks.from_main(lambda: str(create())))
    with run_dir.Lock(run) if ranks.is_main else contextlib.nullcontext():
        if ranks.is_main:
            accounts.write(run, ready)
        return _trainer(config, run, ready, variants, references, model, compute, ranks).fit(), run


def forecast_stage(config: StageConfig, tree: dict[str, Any], scratch: Path) -> tuple[Forecast, list[str]]:
    """What a stage would need, and overrides that help if it does not fit. Writes into the folder `scratch` alone."""
    with Ranks(config.hardware) as ranks:
        precision.set_up(config.hardware, exact=config.training.exact)
        is_transformer = _is_transformer(config.model)
        compute = precision.choose(config.hardware, precision=config.hardware.precision, is_transformer=is_transformer)
        optimizers.require(config.optimizer)
        ready = _rows(config)
        variants = stage_objectives.prepare_variants(config, ready)
        model = _model(config, ready, compute)
        saved.write(scratch / run_dir.CONFIG, tree, header="llmtune plan, resolved")
        ready = stage_reference.made_up(ready, task_of(ready))
        trainer = _trainer(config, scratch, ready, variants, (), model, compute, ranks)
        score, batches = None, []
        if split := ready.splits.get("validation"):
            import llmtune.evaluation.metrics  # noqa: F401  its libraries are part of what an evaluation needs

            batches = evaluation_batches(split.lengths, config.evaluation.batch_size)
            how = {"compute": _scoring(config), "seed": config.seed}

            def score(batch: Any) -> None:
                with trainer.judged():
                    next(score_batches(model, trainer.task, split, [batch], **how))

        found = forecast(trainer, scratch, score=score, batches=batches)
        return found, remedies(found, trainer, is_transformer=is_transformer)


def _rows(config: StageConfig) -> Prepared:
    ready = prepare_stage(config)
    balancing.require_labels(config.balance, ready.meta["task"].get("label_names", ()))
    if config.model.type == "run":
        _tell_other_cleaning(config.model.path, cleaners.described(config.clean))
    return ready


def _tell_other_cleaning(start: str, ours: list[dict[str, Any]]) -> None:
    """A model knows texts as they were cleaned for it."""
    file = run_dir.locate_checkpoint(paths.resolve(start)) / "llmtune.json"
    theirs = read_json(file).get("clean", []) if file.is_file() else ours
    if theirs != ours:
        before, now = (cleaners.told(steps) or "none" for steps in (theirs, ours))
        console.notice(f"{start} learned from texts that were cleaned otherwise: {before}; here: {now}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _model(config: StageConfig, ready: Prepared, compute: Compute) -> nn.Module:
    spec = tasks.model_spec(ready.meta["task"], ready.meta["tokenizer"])
    torch.manual_seed(draw_key(config.seed, "init"))
    begun = start(config.model, spec, config.tuning)
    base = begun.base
    if begun.told:
        console.notice(begun.told)
    if new := new_weights(base):
        modules = dict.fromkeys(name.rpartition(".")[0] or name for name, _ in base.named_parameters() if name in new)
        console.notice(f"new weights, still to be learned: {', '.join(modules)}")
    if config.training.activation_checkpointing:
        _checkpoint_activations(base)
    model = begun.open(config.tuning, max_length=spec.max_length, packs=True).to(compute.device)
    title = f"{config.model.type}: {compute.device.type}, {compute.precision}"
    weights_table.tell(model, config.tuning, config.optimizer, title=title)
    return model


def _checkpoint_activations(model: Any) -> None:
    if not model.supports_gradient_checkpointing:
        remedy = "leave it out, or a larger training.gradient_accumulation_steps"
        raise ModelError(f"training.activation_checkpointing: {model.config.model_type} does not offer it", remedy=remedy)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def _is_transformer(model: ModelConfig) -> bool:
    """Whether the model is one of transformers' own; an adapter has no config.json, and is always for one of these."""
    if model.type != "run":
        return model.type not in ("lstm", "mlp")
    file = run_dir.locate_checkpoint(paths.resolve(model.path)) / "config.json"
    return not file.is_file() or not str(read_json(file).get("model_type")).startswith("llmtune_")


def _trainer(
    config: StageConfig,
    run: Path,
    ready: Prepared,
    variants: Prepared | None,
    references: Sequence[str],
    model: nn.Module,
    compute: Compute,
    ranks: Ranks,
) -> Trainer:
    task = task_of(ready)
    for key in ("isolate_documents", "packing"):
        if getattr(task, key, False):
            require_isolation(model, key=f"task.{key}")
    stage_objectives.install(config, ready, variants, task, model)
    best_metric = config.training.best_metric or next(iter(METRICS[config.task.type]))
    digest = None if config.tuning.type in LEARN_ALL else frozen.digest(model)
    sampler = None
    if config.task.type in CLASSIFIERS:
        sampler = balancing.apply(config.balance, task, ready.splits["train"], seed=config.seed)
    loss_of = stage_objectives.loss_of(config, task, model)  # around the criterion that is balanced
    if config.training.layer_drop:
        if ranks.size > 1:
            problem = "what a step leaves out has no gradients, for which several processes would wait: set it to 0"
            raise ConfigError([f"training.layer_drop: {problem}"])
        layer_drop.install(model, probability=config.training.layer_drop)
    evaluate_now = _validation(config, ready, model, task, ranks)
    whole = contextlib.nullcontext
    if compute.device.type == "cpu" and not config.hardware.compile:
        gelu.install(model)
        rotary.install(model)
        if digest is not None:
            low_rank.install(model)
        if digest is not None and compute.precision == "bf16":
            whole = Lowered(model, keep_in=run if evaluate_now is not None else None).whole
    return Trainer(
        run=run,
        model=model,
        groups=parameter_groups.build(model, config.tuning, weight_decay=config.optimizer.weight_decay),
        task=task,
        loss_of=loss_of,
        split=ready.splits["train"],
        sampler=sampler,
        evaluate=evaluate_now,
        best_metric=best_metric,
        higher_is_better=METRICS[config.task.type][best_metric],
        conclude=partial(_conclude, config, run, ready),
        make_state=_state_maker(config, ready, model, digest),
        fingerprint={**_fingerprint(config, ready, variants, references, compute, ranks), "frozen": digest},
        training=config.training,
        optimizer_config=config.optimizer,
        schedule=config.schedule,
        averaging=config.averaging,
        compute=compute,
        ranks=ranks,
        seed=config.seed,
        num_workers=config.hardware.num_workers,
        openings=openings.build(model, config.tuning) if config.tuning.type == "gradual" else None,
        compiled=torch.compile(model, dynamic=True) if config.hardware.compile else None,
        whole=whole,
    )


def _scoring(config: StageConfig) -> Compute:
    """Where and how the stage is evaluated."""
    return precision.choose(
        config.hardware, precision=config.evaluation.precision, is_transformer=_is_transformer(config.model)
    )


def _validation(config: StageConfig, ready: Prepared, model: nn.Module, task: Any, ranks: Ranks):
    if "validation" not in ready.splits:
        console.notice("there are no validation rows: the last checkpoint counts as the best")
        return None
    known = METRICS[config.task.type]
    how = {"batch_size": config.evaluation.batch_size, "compute": _scoring(config), "seed": config.seed, "ranks": ranks}

    def scored(is_stopping: Callable[[], bool]) -> dict[str, Any] | None:
        found = evaluate(model, task, ready.splits["validation"], is_stopping=is_stopping, **how)
        return found and {name: value for name, value in found.metrics.items() if name in known}

    return scored


def _conclude(config: StageConfig, run: Path, ready: Prepared, is_stopping: Callable[[], bool]) -> dict[str, Any] | None:
    if deciding.threshold_of(config.balance) is None:
        return {}
    found = deciding.decide(config, run, ready.splits["validation"], is_stopping)
    return found and {"thresholds": found}


def _state_maker(config: StageConfig, ready: Prepared, model: nn.Module, digest: str | None) -> partial[State]:
    """The part of a checkpoint that is the same at every step, and access to the weights."""
    facts = {
        "llmtune": llmtune.__version__,
        "task": ready.meta["task"],
        "tokenizer": ready.meta["tokenizer"],
        "data": {"prepared": ready.directory.name, "inputs": prepared.inputs_of(ready)},
        "clean": cleaners.described(config.clean),
        "tuning": config.tuning.model_dump(mode="json"),
        "model": _portable(config.model.model_dump(mode="json")),
    }
    if digest is None:
        save_model, learned = partial(_save_pretrained, model), {}
    else:
        facts["base_digest"] = digest
        save_model, learned = None, tuning.learned_tensors(model)
    return partial(State, save_model, learned, description=facts, tokenizer_dir=tokenizer_dir_of(ready))


def _save_pretrained(model: Any, directory: Path) -> None:
    model.save_pretrained(directory)


def _portable(model: dict[str, Any]) -> dict[str, Any]:
    """Paths that still hold when the command is given elsewhere."""
    for key in ("pretrained", "path"):
        if model.get(key) and Path(model[key]).exists():
            model[key] = str(Path(model[key]).resolve())
    return model


def _fingerprint(
    config: StageConfig,
    ready: Prepared,
    variants: Prepared | None,
    references: Sequence[str],
    compute: Compute,
    ranks: Ranks,
) -> dict[str, Any]:
    """What a resumed run must share with its beginning to go on bit for bit."""
    import transformers

    training = config.training.model_dump(
        mode="json", include={"batch_size", "max_tokens_per_batch", "gradient_accumulation_steps", "group_by_length"}
    )
    return {
        "seed": config.seed,
        "data": "+".join([*(part.directory.name for part in (ready, variants) if part is not None), *references]),
        **training,
        "threads": torch.get_num_threads(),
        "ranks": ranks.size,
        "device": "cpu" if compute.device.type == "cpu" else torch.cuda.get_device_name(compute.device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "precision": compute.precision,
        "compile": config.hardware.compile,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "augment": augmenters.fingerprint(config.augment),
    }
