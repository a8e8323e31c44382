"""`llmtune run`: preprocess, train, evaluate, finetune, export, in order. A finished stage is not done twice."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console
from llmtune.config import saved
from llmtune.config.compose import compose
from llmtune.config.schema import EvaluateConfig, ExportVerbConfig, StageConfig

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.training.distributed import Ranks


def run(args: list[str], options: "Options") -> int:
    composed = compose("run", args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    from llmtune.commands import runs
    from llmtune.training import run_dir
    from llmtune.training.distributed import Ranks

    config = composed.config
    ranks = Ranks(config.hardware)
    directory = Path(ranks.from_main(lambda: str(runs.open_run(composed, verb="run", takes_finished=True))))
    result = _stage(config, directory, ranks)
    final = directory
    if config.finetune is not None:
        final = directory / "finetune"
        stage = config.finetune.model_copy(update={"model": config.finetune.model.model_copy(update={"path": str(directory)})})
        if ranks.is_main and not (final / run_dir.CONFIG).is_file():
            final.mkdir(exist_ok=True)
            tree = {**composed.tree, **stage.model_dump(mode="json"), "finetune": None}
            saved.write(final / run_dir.CONFIG, tree, header="the finetune stage of llmtune run, resolved")
        result = _stage(stage, final, ranks)
    if ranks.is_main:
        if config.export:
            _export(config, final)
        runs.report_result(result, final)
    return 0


def _stage(config: StageConfig, directory: Path, ranks: "Ranks") -> dict[str, Any]:
    """Train and evaluate, unless that is done."""
    from llmtune.commands import runs, stage
    from llmtune.training import run_dir

    ranks.wait()
    if run_dir.is_finished(directory):
        console.notice(f"training is done: {directory}")
        result = run_dir.read_result(directory)
    else:
        result = stage.train_stage(config, directory, ranks)
    runs.tell_result(result, directory)
    if ranks.is_main:
        _evaluate(config, directory)
    return result


def _evaluate(config: StageConfig, directory: Path) -> None:
    from llmtune.commands import evaluate, stage

    if (directory / "evaluation" / "test" / "metrics.json").is_file():
        console.notice(f"evaluation is done: {directory / 'evaluation' / 'test'}")
    elif "test" in stage.prepare_stage(config).splits:
        shared = {"hardware": config.hardware, "evaluation": config.evaluation}
        scoring = EvaluateConfig.model_construct(run=str(directory), checkpoint="best", split="test", file=None, **shared)
        metrics, written = evaluate.evaluate_run(scoring)
        evaluate.tell_metrics("evaluated on test", metrics, written)


def _export(config: Any, directory: Path) -> None:
    from llmtune.commands import export

    target = directory / "export"
    if all((target / name).is_dir() for name in config.export) and (target / "parity.json").is_file():
        console.notice(f"export is done: {target}")
        return
    wanted = ExportVerbConfig.model_construct(
        run=str(directory), checkpoint="best", hardware=config.hardware, export=config.export, output=None, parity_rows=1000
    )
    export.tell_parity(*export.export_run(wanted))
