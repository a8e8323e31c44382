"""predictions.jsonl: one JSON object for each example of a split, in the order of the examples."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmtune.files import replacing
from llmtune.tasks.base import Task

SHOWN = ("text", "text_pair", "features")  # of a stored row, as in what `predict` prints


def write(path: Path, *, task: Task, outputs: dict[str, np.ndarray], rows: Iterable[dict[str, Any]]) -> None:
    """Write the file row by row; it appears whole or not at all.

    Args:
        path: of the file.
        task: whose predictions they are.
        outputs: the task's outputs, with `loss` (each example's sum over its targets) and `num_targets`.
        rows: the stored rows, read one at a time.
    """
    label_names = task.describe().get("label_names", ())
    with replacing(path) as file:
        for i, row in enumerate(rows):
            shown = {name: _plain(row[name]) for name in SHOWN if name in row}
            answer = {name: values[i] for name, values in outputs.items()}
            match task.type:
                case "classification":
                    shown |= _class(answer, label_names)
                case "multilabel":
                    shown |= _labels(answer, label_names)
                case "tagging":
                    shown |= _tags(answer, row, task)
                case "regression":
                    shown |= {name: rounded(answer[name]) for name in ("reference", "prediction", "loss")}
                case "preference":
                    shown |= _pair(answer, row, task)
                case _:
                    shown |= _block(answer)
            file.write(json.dumps(shown, ensure_ascii=False, allow_nan=False) + "\n")


def rounded(value: float) -> float | None:
    """The seven digits that a float32 holds; None for what JSON does not know."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _class(answer: dict[str, Any], label_names: Sequence[str]) -> dict[str, Any]:
    shares_C = answer["probabilities"]
    return {
        "reference": label_names[answer["reference"]],
        "prediction": label_names[answer["prediction"]],
        "probability": _probability(shares_C[answer["prediction"]]),
        "probabilities": {name: _probability(share) for name, share in zip(label_names, shares_C, strict=True)},
        "loss": rounded(answer["loss"]),
    }


def named(label_names: Sequence[str], is_set_C: np.ndarray) -> list[str]:
    """The names of the labels that a row has."""
    return [name for name, is_set in zip(label_names, is_set_C, strict=True) if is_set]


def entities(task: Any, row: dict[str, Any], ids: np.ndarray) -> list[dict[str, Any]]:
    """The entities that the tags of a row's words spell, with their places in the text, in characters.

    Args:
        task: a tagging.
        row: stored.
        ids: of the tag of each word.
    """
    starts, ends = row["spans"][::2], row["spans"][1::2]
    found = []
    for first, behind, kind in task.scheme.entities(ids):
        start, end = int(starts[first]), int(ends[behind - 1])
        found.append({"type": task.scheme.types[kind], "text": row["text"][start:end], "start": start, "end": end})
    return found


def _labels(answer: dict[str, Any], label_names: Sequence[str]) -> dict[str, Any]:
    return {
        "reference": named(label_names, answer["reference"]),
        "prediction": named(label_names, answer["prediction"]),
        "probabilities": {name: _probability(p) for name, p in zip(label_names, answer["probabilities"], strict=True)},
        "loss": rounded(answer["loss"]),
    }


def _tags(answer: dict[str, Any], row: dict[str, Any], task: Any) -> dict[str, Any]:
    predicted = task.tags_of(answer["prediction"], row["positions"])
    words = zip(row["spans"][::2], row["spans"][1::2], strict=True)
    return {
        "tokens": [row["text"][start:end] for start, end in words],
        "reference": [task.label_names[tag] for tag in row["tags"]],
        "prediction": [task.label_names[tag] if tag >= 0 else None for tag in predicted],
        "entities": entities(task, row, predicted),
        "loss": rounded(answer["loss"]),
    }


def _pair(answer: dict[str, Any], row: dict[str, Any], task: Any) -> dict[str, Any]:
    numbers = {name: rounded(answer[name]) for name in answer if name.startswith(("chosen_", "rejected_"))}
    return {**task.texts_of(row), **numbers, "loss": rounded(answer["loss"])}


def _block(answer: dict[str, Any]) -> dict[str, Any]:
    """Loss of the mean target, so that blocks of different lengths compare."""
    num_targets = int(answer["num_targets"])
    loss = rounded(answer["loss"] / num_targets) if num_targets else None
    return {"loss": loss, "num_targets": num_targets, "num_correct": int(answer["num_correct"])}


def _probability(share: float) -> float | None:
    return round(float(share), 6) if math.isfinite(share) else None


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
