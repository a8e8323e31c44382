"""What an evaluation leaves in its folder: predictions.jsonl, answers.jsonl, report.html, metrics.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmtune.data.prepared import Split
from llmtune.evaluation import predictions, report
from llmtune.evaluation.evaluate import Evaluation
from llmtune.evaluation.generated import Compared
from llmtune.evaluation.plots import thin
from llmtune.evaluation.report import Example, Scatter
from llmtune.files import replacing, write_json
from llmtune.tasks.base import Task

MOST_MISTAKES = 30
MOST_ANSWERS = 100


def write_evaluation(
    directory: Path,
    found: Evaluation,
    *,
    task: Task,
    split: Split,
    facts: list[tuple[str, str]],
    history_file: Path,
    compared: Sequence[Compared] = (),
) -> None:
    """Write all of them, answers.jsonl if there are any; metrics.json comes last and says that the evaluation is complete."""
    directory.mkdir(parents=True, exist_ok=True)
    if compared:
        with replacing(directory / "answers.jsonl") as file:
            file.writelines(json.dumps(one.as_json(), ensure_ascii=False) + "\n" for one in compared)
    description = task.describe()
    predictions.write(
        directory / "predictions.jsonl",
        task=task,
        outputs=found.answers,
        rows=(split.row(i) for i in range(split.num_rows)),
    )
    report.write(
        directory / "report.html",
        title=f"{task.type.replace('_', ' ')} on {directory.name}",
        facts=facts,
        metrics=found.metrics,
        history=_history(history_file),
        examples=_worst(found.answers, split, task, description),
        compared=compared[:MOST_ANSWERS],
        scatter=_scatter(found.answers, split, description) if task.type == "regression" else None,
    )
    write_json(directory / "metrics.json", found.metrics)


def _history(file: Path) -> list[dict[str, Any]]:
    """All whole lines; a kill can leave half a line at the end."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def _worst(outputs: dict[str, np.ndarray], split: Split, task: Any, description: dict[str, Any]) -> list[Example]:
    """The wrong predictions that a classifier was surest of, the largest errors of a regression, or the largest losses.

    Of preferences, the prediction is the rejected answer that has the larger reward.
    """
    match description["type"]:
        case "classification":
            names, predicted_N = description["label_names"], outputs["prediction"]
            wrong = np.flatnonzero(predicted_N != outputs["reference"])
            sureness = outputs["probabilities"][wrong, predicted_N[wrong]]
            return [
                Example(_texts(split, i, description), names[outputs["reference"][i]], names[predicted_N[i]], f"{share:.1%}")
                for i, share in _largest(wrong, sureness)
            ]
        case "regression":
            references_N, predicted_N = outputs["reference"], outputs["prediction"]
            errors_N = np.abs(predicted_N - references_N)
            wrong = np.flatnonzero(errors_N > 0)
            return [
                Example(_texts(split, i, description), f"{references_N[i]:,.6g}", f"{predicted_N[i]:,.6g}", f"{error:,.6g}")
                for i, error in _largest(wrong, errors_N[wrong])
            ]
        case "preference":
            margins_N = outputs["chosen_reward"] - outputs["rejected_reward"]
            wrong = np.flatnonzero(margins_N <= 0)
            return [_wrong_way_round(task.texts_of(split.row(i)), less) for i, less in _largest(wrong, -margins_N[wrong])]
        case "multilabel":
            wrong = np.flatnonzero((outputs["prediction"] != outputs["reference"]).any(1))
            sides = outputs["reference"], outputs["prediction"]
            return [
                Example(_texts(split, i, description), *(_labels(task, side[i]) for side in sides), f"{loss:.3g}")
                for i, loss in _largest(wrong, outputs["loss"][wrong])
            ]
        case "tagging":
            return [
                Example((row["text"],), _spelled(task, row, row["tags"]), _spelled(task, row, predicted), f"{loss:.3g}")
                for i, loss in _largest(np.arange(split.num_rows), outputs["loss"])
                if (predicted := task.tags_of(outputs["prediction"][i], (row := split.row(i))["positions"])).tolist()
                != row["tags"].tolist()
            ]
    return []


def _wrong_way_round(texts: dict[str, str], less: float) -> Example:
    return Example((texts["prompt"],), texts["chosen"], texts["rejected"], f"{-less:.3g}")


def _labels(task: Any, is_set_C: np.ndarray) -> str:
    return ", ".join(predictions.named(task.label_names, is_set_C)) or "–"


def _spelled(task: Any, row: dict[str, Any], ids: np.ndarray) -> str:
    return ", ".join(f"{found['type']}: {found['text']}" for found in predictions.entities(task, row, ids)) or "–"


def _largest(rows: np.ndarray, values: np.ndarray) -> list[tuple[int, float]]:
    order = np.argsort(-values, kind="stable")[:MOST_MISTAKES]
    return list(zip(rows[order].tolist(), values[order].tolist(), strict=True))


def _texts(split: Split, index: int, description: dict[str, Any]) -> tuple[str, ...]:
    row = split.row(index)
    if "feature_names" in description:
        return (", ".join(f"{name} = {v:.5g}" for name, v in zip(description["feature_names"], row["features"], strict=True)),)
    return tuple(row[name] for name in ("text", "text_pair") if name in row)


def _scatter(outputs: dict[str, np.ndarray], split: Split, description: dict[str, Any]) -> Scatter:
    rows = thin(range(split.num_rows), report.MOST_DOTS)
    references, predicted = (outputs[name][rows].tolist() for name in ("reference", "prediction"))
    names = description.get("feature_names", ())
    if len(names) != 1:
        return Scatter(references, predicted)
    return Scatter(references, predicted, [float(row["features"][0]) for row in split.rows(rows)], names[0])
