"""`llmtune run`: preprocess, train, evaluate, finetune, export, in order. A finished stage is not done twice."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console, startup
from llmtune.config import tuning_rules
from llmtune.config.compose import Composed, compose
from llmtune.config.schema import EvaluateConfig, ExportVerbConfig, StageConfig
from llmtune.errors import ConfigError

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.training.distributed import Ranks


def run(args: list[str], options: "Options") -> int:
    composed = compose("run", args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    if composed.config.wants_all_folds:
        from llmtune.commands import folds

        return folds.run("run", args, options, composed)
    with startup.importing():
        import llmtune.commands.stage  # noqa: F401  which imports all the large ones
        from llmtune.training.distributed import Ranks

    with Ranks(composed.config.hardware) as ranks:
        _run(composed, ranks)
    return 0


def _run(composed: Composed, ranks: "Ranks") -> None:
    from llmtune.commands import runs
    from llmtune.export import registry

    config = composed.config
    if problems := tuning_rules.of_exports(config):
        raise ConfigError(problems)
    registry.require(config.export)
    result, directory = _stage(
        config,
        ranks,
        find=lambda ready: runs.find_run(composed, ready, takes_finished=True),
        create=lambda: runs.new_run(composed, verb="run"),
    )
    if config.finetune is not None:
        first = {"model": config.finetune.model.model_copy(update={"path": str(directory.resolve())})}
        second = config.finetune.model_copy(update=first)
        tree = {**composed.tree, **second.model_dump(mode="json"), "finetune": None}
        result, directory = _stage(
            second,
            ranks,
            find=partial(runs.find_stage, directory, tree),
            create=partial(runs.new_stage, directory, tree),
        )
    if ranks.is_main:
        if config.export:
            _export(config, directory)
        runs.report_result(result, directory)


def _stage(config: StageConfig, ranks: "Ranks", **directories: Callable) -> tuple[dict[str, Any], Path]:
    """Train and evaluate, unless that is done."""
    from llmtune.commands import accounts, runs, stage

    ranks.wait()
    result, directory = stage.train_stage(config, ranks, **directories)
    accounts.tell_run(directory)
    runs.tell_result(result, directory)
    if ranks.is_main:
        _evaluate(config, directory)
    return result, directory


def _evaluate(config: StageConfig, directory: Path) -> None:
    from llmtune.commands import evaluate
    from llmtune.commands.preparing import prepare_stage

    if (directory / "evaluation" / "test" / "metrics.json").is_file():
        console.notice(f"evaluation is done: {directory / 'evaluation' / 'test'}")
    elif "test" in prepare_stage(config).splits:
        shared = {"hardware": config.hardware, "evaluation": config.evaluation}
        scoring = EvaluateConfig.model_construct(run=str(directory), checkpoint="best", split="test", file=None, **shared)
        metrics, written = evaluate.evaluate_run(scoring)
        evaluate.tell_metrics("evaluated on test", metrics, written)


def _export(config: Any, directory: Path) -> None:
    from llmtune.commands import export

    exports = export.missing(directory, config.export)
    if not exports:
        console.notice(f"export is done: {directory / 'export'}")
        return
    wanted = ExportVerbConfig.model_construct(
        run=str(directory), checkpoint="best", hardware=config.hardware, export=exports, output=None, parity_rows=1000
    )
    export.tell_parity(*export.export_run(wanted))
