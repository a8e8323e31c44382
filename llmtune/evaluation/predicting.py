"""Predictions for new rows, as the JSON objects that `predict` prints."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from llmtune.errors import DataError
from llmtune.evaluation.predictions import entities, named, rounded
from llmtune.tasks.base import Draw, Task
from llmtune.training.precision import Compute

NUM_FILLERS = 5  # candidates told for each masked position


def predict(model: nn.Module, task: Task, columns: dict[str, Sequence], *, compute: Compute) -> Iterator[dict[str, Any]]:
    """One JSON-ready object for each row. Models that write text are the business of `generation/`.

    Args:
        model: on its device, in eval mode.
        task: that the model was trained for.
        columns: canonical columns: `text` and `text_pair`, `features`, or `text` and `spans`.
        compute: device and precision.
    """
    with torch.inference_mode(), compute.autocast():
        match task.type:
            case "tagging":
                yield from _tagged(model, task, columns, compute)
            case "masked_lm":
                yield from _filled(model, task, columns["text"], compute)
            case _:
                yield from _answered(model, task, columns, compute)


def _answered(model: nn.Module, task: Task, columns: dict[str, Sequence], compute: Compute) -> Iterator[dict[str, Any]]:
    types = {name: pa.list_(pa.float64()) if name == "features" else pa.string() for name in columns}
    stored = task.encode({name: pa.array(values, types[name]) for name, values in columns.items()})
    examples = [{"id": i, **row} for i, row in enumerate(pa.RecordBatch.from_pydict(stored).to_pylist())]
    num_rows = len(examples)
    outputs = task.score(model, task.collate(examples, Draw(0, 0, training=False)).to(compute.device)).outputs
    names = task.describe().get("label_names", ())
    for i in range(num_rows):
        row = {name: _plain(columns[name][i]) for name in columns}
        shares = outputs["probabilities"][i] if "probabilities" in outputs else ()
        if task.type == "regression":
            yield {**row, "value": rounded(float(outputs["prediction"][i]))}
        elif task.type == "multilabel":
            yield {
                **row,
                "labels": named(names, outputs["prediction"][i]),
                "probabilities": {name: round(float(p), 6) for name, p in zip(names, shares, strict=True)},
            }
        else:
            label = int(outputs["prediction"][i])
            yield {
                **row,
                "label": names[label],
                "probability": round(float(shares[label]), 6),
                "probabilities": {name: round(float(p), 6) for name, p in zip(names, shares, strict=True)},
            }


def _tagged(model: nn.Module, task: Any, columns: dict[str, Sequence], compute: Compute) -> Iterator[dict[str, Any]]:
    """Each word with its tag, and the entities with their places in the text, in characters."""
    given = {name: pa.array(columns[name], pa.list_(pa.int32())) for name in ("spans",) if name in columns}
    stored = task.encode({"text": pa.array(columns["text"], pa.string()), **given}, keeps_all=True)
    rows = pa.RecordBatch.from_pydict(stored).to_pylist()
    batch = task.collate([{"id": i, **row} for i, row in enumerate(rows)], Draw(0, 0, training=False))
    outputs = task.score(model, batch.to(compute.device)).outputs
    task.tell()
    for i, row in enumerate(rows):
        tags = task.tags_of(outputs["prediction"][i], row["positions"])
        words = list(zip(row["spans"][::2], row["spans"][1::2], strict=True))
        yield {
            "text": row["text"],
            "tokens": [row["text"][start:end] for start, end in words],
            "tags": [task.label_names[tag] if tag >= 0 else None for tag in tags],
            "entities": entities(task, row, tags),
        }


def _filled(model: nn.Module, task: Any, texts: Sequence[str], compute: Compute) -> Iterator[dict[str, Any]]:
    """The likeliest tokens at each mask."""
    tokenizer = task.text.tokenizer
    for text in texts:
        ids = np.array(task.text.encode([text])["input_ids"][0])
        masks = np.flatnonzero(ids == task.mask_token_id)
        if not len(masks):
            raise DataError(
                f"the text has no {tokenizer.mask_token} to fill: {text[:80]!r}",
                remedy=f"write {tokenizer.mask_token} in place of a word",
            )
        input_ids = torch.from_numpy(ids)[None].to(compute.device)
        shares_MV = model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).logits[0, masks].float().softmax(-1)
        likeliest = shares_MV.topk(NUM_FILLERS, dim=-1)
        fillers = [
            [
                {"token": tokenizer.decode([token]), "probability": round(share, 6)}
                for token, share in zip(tokens, shares, strict=True)
            ]
            for tokens, shares in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        ]
        yield {"text": text, "masks": fillers}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
