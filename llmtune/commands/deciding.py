"""The end of a training with `balance=threshold`: the decision is moved, and kept beside the weights of the best step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmtune import console
from llmtune.config.schema import StageConfig
from llmtune.config.sections.balance import BalanceConfig, Threshold
from llmtune.data.prepared import Split
from llmtune.evaluation import thresholds
from llmtune.evaluation.evaluate import evaluate
from llmtune.files import write_json
from llmtune.training import checkpoint, manifest, precision
from llmtune.training.restore import restore


def threshold_of(balance: dict[str, BalanceConfig]) -> Threshold | None:
    return next((section for section in balance.values() if isinstance(section, Threshold)), None)


def decide(config: StageConfig, run: Path, validation: Split, is_stopping: Callable[[], bool]) -> dict[str, Any] | None:
    """Find the bias of each class on the validation rows and keep it with the best checkpoint; it scores that anew.

    Returns:
        What the run's result tells of it; None if it was stopped.
    """
    restored = restore(run)
    is_transformer = not restored.model.config.model_type.startswith("llmtune_")
    compute = precision.choose(config.hardware, precision=config.evaluation.precision, is_transformer=is_transformer)
    task, model = restored.task(), restored.model.to(compute.device)
    how = {"batch_size": config.evaluation.batch_size, "compute": compute, "seed": config.seed}
    scored = evaluate(model, task, validation, **how, is_stopping=is_stopping, keep_in=run)
    if scored is None:
        return None
    answers, names = scored.answers, task.describe()["label_names"]
    given = answers["probabilities"], answers["reference"]
    if config.task.type == "multilabel":
        found = thresholds.find_each(*given, threshold=config.task.threshold, label_names=names)
    else:
        found = thresholds.find(*given, metric=threshold_of(config.balance).metric, label_names=names)
    write_json(restored.directory / checkpoint.THRESHOLDS, found)
    manifest.add(restored.directory, checkpoint.THRESHOLDS)
    console.notice(f"thresholds, from {found['rows']:,} validation rows: {thresholds.told(found, names)}")
    return found
