"""`llmtune evaluate RUN`: score a run's model; metrics, predictions and a report are kept in the run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, startup
from llmtune.config.compose import compose
from llmtune.config.sections.generation import WRITING

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.config.schema import EvaluateConfig

MOST_SHOWN, LONGEST_NAME = 6, 16  # classes of a confusion matrix on the console, characters of their names


def run(args: list[str], options: "Options") -> int:
    config = compose("evaluate", args, config_dir=options.config_dir).config
    metrics, directory = evaluate_run(config)
    tell_metrics(f"evaluated on {Path(config.file).name if config.file else config.split}", metrics, directory)
    return 0


def evaluate_run(config: "EvaluateConfig") -> tuple[dict[str, Any], Path]:
    """Score and write; returns the metrics and the folder with metrics.json, predictions.jsonl and report.html."""
    with startup.importing():
        from llmtune.commands import rows, runs, stage_reference
        from llmtune.errors import ConfigError, DataError
        from llmtune.evaluation import thresholds
        from llmtune.evaluation.evaluate import evaluate
        from llmtune.evaluation.writing import write_evaluation
        from llmtune.training import precision, run_dir
        from llmtune.training.restore import restore

    directory = runs.run_of(config.run)
    trained = runs.stage_config(directory)
    precision.set_up(config.hardware, exact=True)
    restored = restore(config.run, which=config.checkpoint)
    is_transformer = not restored.model.config.model_type.startswith("llmtune_")
    compute = precision.choose(config.hardware, precision=config.evaluation.precision, is_transformer=is_transformer)
    task = restored.task()
    if config.evaluation.generate_rows and task.type not in WRITING:
        problem = f"evaluation.generate_rows: task={task.type} writes no text: leave it out"
        raise ConfigError([problem])
    if config.file:
        split, name = rows.of_file(config.file, trained, restored), Path(config.file).name
    else:
        ready, name = rows.of_run(trained, restored), config.split
        if name not in ready.splits:
            raise DataError(
                f"the run has no {name} rows", remedy=f"there are: {', '.join(ready.splits)}; or name a file: file=..."
            )
        split = ready.splits[name]
    if restored.directory.resolve() != run_dir.locate_checkpoint(directory).resolve():
        name += f"-{restored.directory.name}"  # the plain name is the best checkpoint's
    split = stage_reference.of_evaluation(split, task, restored, compute)
    model = restored.model.to(compute.device)
    how = {"batch_size": config.evaluation.batch_size, "compute": compute, "seed": trained.seed}
    found = evaluate(model, task, split, **how, keep_in=directory)
    target = directory / "evaluation" / name
    facts = [("model", str(restored.directory)), ("task", task.type), ("rows", f"{split.num_rows:,}")]
    if moved := restored.facts.get("thresholds"):
        facts.append(("thresholds", thresholds.told(moved, task.describe()["label_names"])))
    compared = []
    if config.evaluation.generate_rows:
        from llmtune.commands import before

        compared, scores = before.answers(config.evaluation, trained, restored, split, compute=compute)
        found = found._replace(metrics={**found.metrics, **scores})
    history = directory / "metrics.jsonl"
    write_evaluation(target, found, task=task, split=split, facts=facts, history_file=history, compared=compared)
    return found.metrics, target


def tell_metrics(title: str, metrics: dict[str, Any], directory: Path) -> None:
    from llmtune.commands.runs import metric_rows

    rows = metric_rows(metrics)
    if without := metrics.get("without_thresholds"):
        rows += [(f"{name}, without thresholds", shown) for name, shown in metric_rows(without)]
    matrix = metrics.get("confusion_matrix")
    if matrix and len(matrix) <= MOST_SHOWN:
        rows += _matrix_rows(matrix, list(metrics["per_class"]))
    for name, shown in metric_rows(metrics.get("answers", {}).get("before", {})):
        rows.append((f"{name}, before training", shown))
    rows.append(("report", str(directory / "report.html")))
    console.result_table(title, rows)
    if "answers" in metrics:
        from llmtune.commands import before

        before.tell(directory)


def _matrix_rows(counts_CC: list[list[int]], names: list[str]) -> list[tuple[str, str]]:
    """The confusion matrix as lines of a table: a heading, and for each class what its rows were taken for."""
    names = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..." for name in names]
    columns = zip(names, zip(*counts_CC, strict=True), strict=True)
    widths = [max(len(name), *(len(f"{n:,}") for n in column)) for name, column in columns]
    heading = ("taken for", "  ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True)))
    lines = ["  ".join(f"{n:>{width},}" for n, width in zip(counts, widths, strict=True)) for counts in counts_CC]
    return [heading, *((f"  {name}", line) for name, line in zip(names, lines, strict=True))]
