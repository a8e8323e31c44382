"""`llmtune average RUN [RUN ...]`: a new run whose weights are the mean of several runs', or of a run's kept checkpoints."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, startup
from llmtune.config.compose import compose
from llmtune.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.config.schema import AverageConfig


def run(args: list[str], options: "Options") -> int:
    config = compose("average", args, config_dir=options.config_dir).config
    told, directory = average(config)
    console.result_table("averaged", [*told, ("run", str(directory))])
    return 0


def average(config: "AverageConfig") -> tuple[list[tuple[str, str]], Path]:
    """Average and write; returns what is to be told of each model, and the new run directory.

    Raises:
        CheckpointError: there are fewer than two, or they are not of one kind.
        DataError: how=greedy, and there are no validation rows that all of them have not seen.
    """
    with startup.importing():
        from llmtune.commands import rows, runs
        from llmtune.config.metrics import METRICS
        from llmtune.evaluation import soup
        from llmtune.evaluation.evaluate import evaluate
        from llmtune.training import precision
        from llmtune.training.restore import restore

    sources = _sources(config)
    first = runs.run_of(str(sources[0]))
    trained = runs.stage_config(first)
    precision.set_up(config.hardware, exact=True)
    restored = restore(sources[0])
    for source in sources[1:]:
        _require_alike(source, sources[0])
    ready = rows.of_run(trained, restored)
    validation = ready.splits.get("validation")
    if config.how == "greedy" and validation is None:
        raise DataError("how=greedy chooses by validation rows, and the run has none", remedy="use how=uniform")
    if seen := [source for source in sources if not _has_same_rows(runs.stage_config(runs.run_of(str(source))), trained)]:
        problem = f"the validation rows of {first} may be among the train rows of {seen[0]}"
        if config.how == "greedy":
            remedy = "train with data.validation_file, or with the same split and seed; or use how=uniform"
            raise DataError(problem, remedy=remedy)
        console.notice(f"{problem}: its metrics are no measure")
    is_transformer = not restored.model.config.model_type.startswith("llmtune_")
    compute = precision.choose(config.hardware, precision=config.evaluation.precision, is_transformer=is_transformer)
    task, metric = restored.task(), trained.training.best_metric or next(iter(METRICS[trained.task.type]))
    sign = 1 if METRICS[trained.task.type][metric] else -1
    found: dict[str, Any] = {}

    def score(model: Any) -> float:
        how = {"batch_size": config.evaluation.batch_size, "compute": compute, "seed": trained.seed}
        found.update(evaluate(model.to(compute.device), task, validation, **how).metrics)
        return float("-inf") if found[metric] is None else sign * found[metric]

    load = lambda number: _model_like(restored, restore(sources[number]))  # noqa: E731
    scores = [score(load(number)) for number in range(len(sources))] if validation is not None else None
    if config.how == "greedy":
        made = soup.greedy(load, scores, score)
    else:
        made = soup.uniform(load(number) for number in range(len(sources)))
    told = [(str(source), "") for source in sources]
    if scores is not None:
        is_in = ["" if number in made.members else ", left out" for number in range(len(sources))]
        told = [(str(s), f"{metric} {sign * v:.4f}{left}") for s, v, left in zip(sources, scores, is_in, strict=True)]
        told.append((f"the average of {len(made.members)}", f"{metric} {sign * score(made.model):.4f}"))
    known = {name: value for name, value in found.items() if name in METRICS[trained.task.type]}
    result = {"metric": metric, "higher_is_better": sign > 0, "value": known.get(metric), "metrics": known}
    members = [str(sources[number]) for number in made.members]
    return told, _written(config, first, ready, made.model, {**result, "how": config.how, "averaged": members})


def _sources(config: "AverageConfig") -> list[Path]:
    """The checkpoints that are averaged."""
    from llmtune import paths
    from llmtune.training import checkpoint, run_dir

    named = [paths.resolve(name) for name in config.runs]
    if len(named) == 1 and (named[0] / run_dir.CONFIG).is_file():
        found = [path for _, path in checkpoint.steps(named[0] / "checkpoints")]
    else:
        found = [run_dir.locate_checkpoint(path) for path in named]
    if len(found) < 2:
        remedy = "name several runs, or train with training.keep_checkpoints=5"
        raise CheckpointError("there is one checkpoint only, which is its own average", where=config.runs[0], remedy=remedy)
    return found


def _require_alike(source: Path, first: Path) -> None:
    """Refuse a model that answers in other words, or reads others."""
    from llmtune.training import manifest

    ours, theirs = (manifest.read_json(path / "llmtune.json") for path in (source, first))
    digests = [manifest.sha256(f) if (f := path / "tokenizer.json").is_file() else None for path in (source, first)]
    if ours.get("task") != theirs.get("task"):
        raise CheckpointError(f"was trained for another task, or other labels, than {first}", where=str(source))
    if digests[0] != digests[1]:
        remedy = "start all of them from one model, or from one split of the rows"
        raise CheckpointError(f"has another tokenizer than {first}", where=str(source), remedy=remedy)


def _has_same_rows(other: Any, first: Any) -> bool:
    """Whether what one keeps for validation is no train row of the other."""
    given = getattr(first.data, "validation_file", None) or getattr(first.data, "validation_split", None)
    return other.data == first.data and (bool(given) or (other.split == first.split and other.seed == first.seed))


def _model_like(first: Any, other: Any) -> Any:
    """The other model, of the same names and shapes as the first."""
    from llmtune.tuning.adapters import has_virtual_tokens

    if has_virtual_tokens(other.model):
        raise CheckpointError("its virtual tokens are no weights of the model", where=str(other.directory))
    shapes = [{name: tuple(p.shape) for name, p in restored.model.named_parameters()} for restored in (first, other)]
    if odd := sorted(name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)):
        problem = f"{odd[0]} is {shapes[1].get(odd[0], 'missing')}, but {shapes[0].get(odd[0], 'missing')} in {first.directory}"
        raise CheckpointError(problem, where=str(other.directory), remedy="average models of one shape")
    return other.model


def _written(config: "AverageConfig", first: Path, ready: Any, model: Any, result: dict[str, Any]) -> Path:
    """A run directory that is complete from its first moment on, with the config of the first run."""
    from llmtune.files import new_folder, write_json
    from llmtune.tasks.prepare import tokenizer_dir_of
    from llmtune.training import checkpoint, manifest, run_dir

    facts = manifest.read_json(_sources(config)[0] / "llmtune.json") | {"averaged": result["averaged"]}
    facts.pop("base_digest", None)
    no_steps = {"steps": 0, "total_steps": 0, "best_step": 0, "stopped_early": False, "train_seconds": 0.0}

    def fill(run: Path) -> None:
        for name in (run_dir.CONFIG, "data.json"):
            if (first / name).is_file():
                shutil.copyfile(first / name, run / name)
        state = checkpoint.State(
            save_model=model.cpu().save_pretrained,
            learned={},
            newest={},
            description=facts,
            tokenizer_dir=tokenizer_dir_of(ready),
            optimizer={},
            trainer={"step": 0, "total_steps": 0},
            fingerprint={},
            config_digest=manifest.sha256(run / run_dir.CONFIG),
        )
        path = checkpoint.save(run / "checkpoints", state, step=0)
        for link in ("best", "latest"):
            checkpoint.point(path.with_name(link), path)
        write_json(run / run_dir.RESULT, {**no_steps, **result})

    made = new_folder(Path(config.output_dir) / config.run_name, fill)
    checkpoint.point(made.parent / "latest", made)
    return made
