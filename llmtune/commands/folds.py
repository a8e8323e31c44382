"""`split=kfold`: one job for each fold, as in a sweep, and a table of all with mean and standard deviation.

A job is the same command line with `split.fold=N`. What became of the folds lies beside their runs in `folds/<time>/`:
config.yaml and folds.json. The same command goes on with the folds that are not finished.
"""

import hashlib
import json
import math
import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune import console
from llmtune.commands.sweep import RESULT_FILE, Job, command_of, finite, launch
from llmtune.config import saved
from llmtune.config.compose import Composed
from llmtune.config.schema import TrainConfig
from llmtune.data import sources
from llmtune.errors import CheckpointError, ConfigError
from llmtune.files import new_folder, write_json
from llmtune.training import run_dir
from llmtune.training.manifest import read_json

if TYPE_CHECKING:
    from llmtune.cli import Options

FOLDS = "folds.json"


def run(verb: str, args: list[str], options: "Options", composed: Composed) -> int:
    """Run all folds that are not finished; returns the first exit code that is not 0."""
    config: TrainConfig = composed.config
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        problem = (
            "all folds at once start processes of their own, which several ranks cannot: run them one by one, split.fold=1"
        )
        raise ConfigError([f"split.fold: is null; {problem}"])
    inputs = hashlib.sha256(json.dumps(sources.fingerprint(config.data)).encode()).hexdigest()[:32]
    resume = ["training.resume=auto"] if config.training.resume == "must" else []
    numbers = range(config.split.num_folds)
    jobs = [Job(number, [*args, *resume, f"split.fold={number + 1}"]) for number in numbers]
    directory = _find(composed, verb, inputs)
    if directory is None:
        directory = new_folder(config.folder / "folds", lambda folder: _begin(folder, composed, verb, inputs, jobs))
    with run_dir.Lock(directory):
        _take_over(directory, jobs)
        for job in launch(jobs, command=command_of(verb, options), directory=directory):
            _write(directory, verb, inputs, jobs)
            if job.exit_code:
                console.notice(f"fold {job.number + 1} ended with exit code {job.exit_code}")
    _tell(jobs, directory)
    _report(jobs, directory)
    return next((job.exit_code for job in jobs if job.exit_code), 0)


def _find(composed: Composed, verb: str, inputs: str) -> Path | None:
    """The folder to go on in; for `run`, whose finished stages are not done twice, also one that is complete.

    Raises:
        CheckpointError: training.resume=must and there is none.
    """
    config: TrainConfig = composed.config
    if config.training.resume == "never":
        return None
    for directory in run_dir.runs_below(config.folder / "folds"):
        told = read_json(directory / FOLDS)
        is_complete = all(job["exit_code"] == 0 for job in told["jobs"])
        if (
            (told["verb"], told["inputs"]) == (verb, inputs)
            and (verb == "run" or not is_complete)
            and saved.same(directory / run_dir.CONFIG, composed.tree, apart_from=run_dir.NOT_COMPARED)
        ):
            return directory
    if config.training.resume == "must":
        where = str(config.folder / "folds")
        raise CheckpointError("there are no unfinished folds of this config", where=where, remedy="training.resume=auto")
    return None


def _begin(folder: Path, composed: Composed, verb: str, inputs: str, jobs: list[Job]) -> None:
    saved.write(folder / run_dir.CONFIG, composed.tree, header=f"llmtune {verb}, all folds, resolved")
    _write(folder, verb, inputs, jobs)


def _take_over(directory: Path, jobs: list[Job]) -> None:
    """What was told of the folds that are finished."""
    for job, known in zip(jobs, read_json(directory / FOLDS)["jobs"], strict=True):
        place = known["result"].get("run_dir")
        if known["exit_code"] == 0 and place and run_dir.is_finished(Path(place)):
            job.exit_code, job.seconds, job.result = 0, known["seconds"], known["result"]
            console.notice(f"fold {job.number + 1} is done: {place}")


def _write(directory: Path, verb: str, inputs: str, jobs: list[Job]) -> None:
    """folds.json as it stands, replaced at once."""
    content = {"verb": verb, "inputs": inputs, "summary": summary(jobs), "jobs": [asdict(job) for job in jobs]}
    write_json(directory / FOLDS, finite(content))


def summary(jobs: Iterable[Job]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample, n - 1) of each metric over the finished folds; empty if there are none.

    The folds are the validation rows; metrics of test rows are those of `llmtune run`, whose folds are scored on them, too.
    """
    results = [job.result for job in jobs if job.exit_code == 0 and job.result]
    if not results:
        return {}
    first = results[0]
    spread = {"folds": len(results), "metrics": _spread([result["metrics"] or {} for result in results])}
    if all(tests := [_test_metrics(result) for result in results]):
        spread["test"] = _spread(tests)
    return {"metric": first["metric"], "higher_is_better": first["higher_is_better"], **spread}


def _spread(metrics: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    names = [name for name, value in metrics[0].items() if _is_number(value) and all(_is_number(m.get(name)) for m in metrics)]
    columns = {name: [float(each[name]) for each in metrics] for name in names}
    return {
        name: {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
        for name, values in columns.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _test_metrics(result: dict[str, Any]) -> dict[str, Any]:
    file = Path(result["run_dir"]) / "evaluation" / "test" / "metrics.json"
    return read_json(file) if file.is_file() else {}


def _tell(jobs: list[Job], directory: Path) -> None:
    found = summary(jobs)
    columns = {"validation": [job.result.get("metrics") or {} for job in jobs]} if found else {}
    if "test" in found:
        columns["test"] = [_test_metrics(job.result) if job.result else {} for job in jobs]
    metric, known = found.get("metric"), {"validation": found.get("metrics", {}), "test": found.get("test", {})}
    rows = []
    for job in jobs:
        state = {None: "not started", 0: "ok"}.get(job.exit_code, f"exit code {job.exit_code}")
        seconds = "" if job.seconds is None else f"{job.seconds:.1f} s"
        values = [_shown(column[job.number].get(metric)) for column in columns.values()]
        rows.append([str(job.number + 1), *values, state, seconds, job.result.get("run_dir", "")])
    if found:
        for word in ("mean", "std"):
            values = [_shown(known[name].get(metric, {}).get(word)) for name in columns]
            rows.append([word, *values, f"of {found['folds']}" if word == "mean" else "", "", ""])
    heads = ["fold", *(f"{name} {metric}" for name in columns), "state", "time", "run"]
    console.jobs_table(f"folds {directory}", heads, rows)


def _shown(value: Any) -> str:
    return f"{value:.4f}" if _is_number(value) else ""


def _report(jobs: list[Job], directory: Path) -> None:
    """Tell a sweep, if all folds together are one of its jobs."""
    found = summary(jobs)
    if (path := os.environ.get(RESULT_FILE)) and found and all(job.exit_code == 0 for job in jobs):
        means = {name: spread["mean"] for name, spread in found["metrics"].items()}
        facts = {"run_dir": str(directory), "metric": found["metric"], "higher_is_better": found["higher_is_better"]}
        Path(path).write_text(json.dumps({**facts, "value": means.get(found["metric"]), "metrics": means}), encoding="utf-8")
