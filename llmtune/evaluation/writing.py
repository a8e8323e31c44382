"""What an evaluation leaves in its folder: metrics.json, predictions.jsonl, report.html."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from llmtune.data.prepared import Split
from llmtune.evaluation import predictions, report
from llmtune.evaluation.evaluate import Evaluation
from llmtune.tasks.base import Task
from llmtune.training.checkpoint import write_json

MOST_MISTAKES = 50
MOST_POINTS = 2000


def write_evaluation(
    directory: Path, found: Evaluation, *, task: Task, split: Split, facts: list[tuple[str, str]], history_file: Path
) -> None:
    """Write all three; metrics.json comes last and says that the evaluation is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    names = task.describe().get("label_names", ())
    outputs = {**found.scores.outputs, "loss": found.scores.loss_sums}
    rows = (split.row(i) for i in range(split.num_rows))
    predictions.write(directory / "predictions.jsonl", task_type=task.type, outputs=outputs, rows=rows, label_names=names)
    scatter = None
    if task.type == "regression":
        scatter = (outputs["reference"][:MOST_POINTS].tolist(), outputs["prediction"][:MOST_POINTS].tolist())
    history = [json.loads(line) for line in history_file.read_text(encoding="utf-8").splitlines()] if history_file.is_file() else []
    report.write(
        directory / "report.html",
        title=f"{task.type} on {directory.name}",
        facts=facts,
        metrics=found.metrics,
        history=history,
        mistakes=_worst_mistakes(outputs, split, names) if task.type == "classification" else [],
        scatter=scatter,
    )
    write_json(directory / "metrics.json", found.metrics)


def _worst_mistakes(outputs: dict[str, np.ndarray], split: Split, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The wrong predictions that the model was surest of."""
    wrong = np.flatnonzero(outputs["prediction"] != outputs["reference"])
    sureness = outputs["probabilities"][wrong, outputs["prediction"][wrong]]
    mistakes = []
    for i in wrong[np.argsort(-sureness, kind="stable")][:MOST_MISTAKES]:
        row = split.row(int(i))
        text = " | ".join(row[k] for k in ("text", "text_pair") if k in row) or f"row {i}"
        mistakes.append(
            {
                "text": text,
                "reference": names[outputs["reference"][i]],
                "prediction": names[outputs["prediction"][i]],
                "probability": float(outputs["probabilities"][i, outputs["prediction"][i]]),
            }
        )
    return mistakes
