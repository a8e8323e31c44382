"""predictions.jsonl: one JSON object for each example of a split, in the order of the examples."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmtune.files import replacing

SHOWN = ("text", "text_pair", "features")  # of a stored row, as in what `predict` prints


def write(
    path: Path, *, task_type: str, outputs: dict[str, np.ndarray], rows: Iterable[dict[str, Any]], label_names: Sequence[str]
) -> None:
    """Write the file row by row; it appears whole or not at all.

    Args:
        path: of the file.
        task_type: what the predictions are: class names, numbers, or blocks of tokens.
        outputs: the task's outputs, with `loss` (each example's sum over its targets) and `num_targets`.
        rows: the stored rows, read one at a time.
        label_names: of a classification.
    """
    with replacing(path) as file:
        for i, row in enumerate(rows):
            shown = {name: _plain(row[name]) for name in SHOWN if name in row}
            answer = {name: values[i] for name, values in outputs.items()}
            match task_type:
                case "classification":
                    shown |= _class(answer, label_names)
                case "regression":
                    shown |= {name: rounded(answer[name]) for name in ("reference", "prediction", "loss")}
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


def _block(answer: dict[str, Any]) -> dict[str, Any]:
    """Loss of the mean target, so that blocks of different lengths compare."""
    num_targets = int(answer["num_targets"])
    loss = rounded(answer["loss"] / num_targets) if num_targets else None
    return {"loss": loss, "num_targets": num_targets, "num_correct": int(answer["num_correct"])}


def _probability(share: float) -> float | None:
    return round(float(share), 6) if math.isfinite(share) else None


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
