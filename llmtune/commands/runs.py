"""Which run directory a command works in, what it tells at the end, and where a sweep finds its result."""

import json
import os
from collections.abc import Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from llmtune import console
from llmtune.config import saved
from llmtune.config.compose import Composed
from llmtune.config.schema import StageConfig, TrainConfig
from llmtune.data.prepared import Prepared, inputs_of
from llmtune.errors import CheckpointError
from llmtune.evaluation import thresholds
from llmtune.files import new_folder
from llmtune.training import checkpoint, drift, run_dir
from llmtune.training.manifest import read_json
from llmtune.training.run_dir import NOT_COMPARED


def find_run(composed: Composed, ready: Prepared, *, takes_finished: bool) -> Path | None:
    """The run directory to go on with: if `training.resume` allows and there is one.

    Args:
        composed: the config.
        ready: its rows; a finished run of other rows is another run.
        takes_finished: whether a finished run of the same config will do, so that a later stage can go on there.

    Raises:
        CheckpointError: training.resume=must and there is nothing to resume, or the named run has another config.
    """
    config: TrainConfig = composed.config
    resume, parent = config.training.resume, config.folder
    apart_from = NOT_COMPARED | drift.config_keys(config.training.allow_drift)
    if resume not in ("auto", "never", "must"):
        run = Path(resume)
        if not (run / run_dir.CONFIG).is_file():
            raise CheckpointError(
                f"training.resume={resume} is no run directory", remedy="training.resume=auto finds the run itself"
            )
        if differences := saved.differences(run / run_dir.CONFIG, composed.tree, apart_from=apart_from):
            raise CheckpointError(
                f"the run was started with another config: {'; '.join(differences)}",
                where=str(run / run_dir.CONFIG),
                remedy="undo the change, or training.resume=never starts a new run",
            )
        return run.resolve()
    if resume == "never":
        return None
    for run in run_dir.runs_below(parent):
        if _suits(run, composed.tree, ready, apart_from=apart_from, takes_finished=takes_finished):
            return _pointed_to(run)
    if resume == "must":
        raise CheckpointError(
            "there is no unfinished run of this config", where=str(parent), remedy="training.resume=auto starts one"
        )
    return None


def new_run(composed: Composed, *, verb: str) -> Path:
    """A new run directory with its config.yaml."""
    header = f"llmtune {verb}, resolved"
    fill = lambda run: saved.write(run / run_dir.CONFIG, composed.tree, header=header)  # noqa: E731
    return _pointed_to(new_folder(composed.config.folder, fill))


def find_stage(run: Path, tree: dict[str, Any], ready: Prepared) -> Path | None:
    """The second stage of a run, if it has one with this config and these rows."""
    apart_from = NOT_COMPARED | {"model.path"} | drift.config_keys(tree["training"]["allow_drift"])
    for stage in _stages(run):
        if _suits(stage, tree, ready, apart_from=apart_from, takes_finished=True):
            return stage
    return None


def new_stage(run: Path, tree: dict[str, Any]) -> Path:
    """A new second stage: `finetune` in the run, or `finetune-2`, ... beside one of another config."""
    stage = next(place for place in _places(run) if not (place / run_dir.CONFIG).is_file())
    stage.mkdir(exist_ok=True)
    saved.write(stage / run_dir.CONFIG, tree, header="the finetune stage of llmtune run, resolved")
    return stage


def _suits(run: Path, tree: dict[str, Any], ready: Prepared, *, apart_from: set[str], takes_finished: bool) -> bool:
    """Whether a command can go on in a run; a finished one has to be of the same config and rows."""
    if run_dir.is_finished(run):
        apart_from = apart_from & (NOT_COMPARED | {"model.path"})
        return takes_finished and saved.same(run / run_dir.CONFIG, tree, apart_from=apart_from) and is_of(run, ready)
    return saved.same(run / run_dir.CONFIG, tree, apart_from=apart_from)


def is_of(run: Path, ready: Prepared) -> bool:
    """Whether a finished run was trained on these rows' source files."""
    return read_json(run / "checkpoints" / "best" / "llmtune.json").get("data", {}).get("inputs") == inputs_of(ready)


def stage_config(run: Path) -> StageConfig:
    """The config of a run. Keys that an older run lacks are told."""
    config, added = saved.read(run / run_dir.CONFIG)
    if added:
        console.notice(f"{run / run_dir.CONFIG} is older and lacks {', '.join(added)}: these values are used")
    return config


def run_of(path: str) -> Path:
    """The run directory that a path names, or that a checkpoint lies in."""
    given = Path(path)
    for candidate in (given, *given.resolve().parents[:2]):
        if (candidate / run_dir.CONFIG).is_file():
            return candidate
    raise CheckpointError(f"{path} is no run directory", remedy="name a run, such as runs/lstm_cls/latest")


def tell_result(result: dict[str, Any], run: Path) -> None:
    """The closing table of a training stage."""
    rows = [
        ("run", str(run)),
        ("steps", f"{result['steps']} of {result['total_steps']}{' (stopped early)' if result['stopped_early'] else ''}"),
    ]
    if result["value"] is not None:
        rows.append(("best checkpoint", f"step {result['best_step']}, validation {result['metric']} {result['value']:.4f}"))
        rows += [(f"validation {name}", shown) for name, shown in metric_rows(result["metrics"]) if name != result["metric"]]
    if "thresholds" in result:
        names = read_json(run / "checkpoints" / "best" / "llmtune.json")["task"]["label_names"]
        rows.append(("thresholds", thresholds.told(result["thresholds"], names)))
    rows.append(("training time", f"{result['train_seconds']:.1f} s"))
    if result["tokens_per_second"]:
        shares = f"{result['padding_share']:.0%} padding, {result['wait_share']:.1%} waiting"
        rows.append(("throughput", f"{result['tokens_per_second']:,.0f} tokens/s, {shares}"))
    rows.append(("weights", str(run / "checkpoints" / "best")))
    console.result_table("trained", rows)


def metric_rows(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers among the metrics; averages of one kind share a row."""
    rows: dict[str, list[str]] = {}
    for name, value in metrics.items():
        if isinstance(value, float):
            kind, _, average = name.partition("_")
            averaged = average in ("macro", "micro", "weighted", "samples")
            rows.setdefault(kind if averaged else name, []).append(f"{average} {value:.4f}" if averaged else f"{value:.4f}")
    return [(name, "  ".join(shown)) for name, shown in rows.items()]


def report_result(result: dict[str, Any], run: Path) -> None:
    """Tell a sweep, if this process is one of its jobs."""
    if path := os.environ.get("LLMTUNE_RESULT_FILE"):
        facts = {"run_dir": str(run), **{k: result[k] for k in ("metric", "value", "higher_is_better", "metrics")}}
        Path(path).write_text(json.dumps(facts), encoding="utf-8")


def _places(run: Path) -> Iterator[Path]:
    return (run / ("finetune" if number == 1 else f"finetune-{number}") for number in count(1))


def _stages(run: Path) -> Iterator[Path]:
    return takewhile(lambda place: (place / run_dir.CONFIG).is_file(), _places(run))


def _pointed_to(run: Path) -> Path:
    """Let `latest` beside a run name it."""
    checkpoint.point(run.parent / "latest", run)
    return run
