"""Answers that a model writes for rows of a split, beside the references and what it wrote before it was trained."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from llmtune import console
from llmtune.config.sections.generation import Sampling
from llmtune.data.prepared import Split
from llmtune.evaluation.rouge import rouge
from llmtune.generation.prompts import Prompts
from llmtune.generation.row import Answer
from llmtune.generation.writer import Writer
from llmtune.training.precision import DTYPES, Compute

SCORES = ("exact_match", "rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Compared:
    """An answer beside others.

    Attributes:
        row: of the split.
        prompt: what the model has read, as text.
        reference: what it should have said.
        before: what it said before it was trained; None: nobody knows.
        answer, finish_reason: what it says now, and why it ended there.
        scores: of the answer, by `SCORES`.
    """

    row: int
    prompt: str
    reference: str
    before: str | None
    answer: str
    finish_reason: str
    scores: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        shown = asdict(self)
        return {**shown, **shown.pop("scores")}


def compare(
    model: PreTrainedModel,
    prompts: Prompts,
    split: Split,
    *,
    num_rows: int,
    max_new_tokens: int,
    batch_size: int,
    compute: Compute,
    before: Callable[[], PreTrainedModel | None],
) -> tuple[list[Compared], dict[str, Any]]:
    """Write answers, always with the likeliest token, and compare them.

    Args:
        model: trained; its weights are changed to the precision that is asked for.
        prompts: for it.
        split: of a language model's rows.
        num_rows: at most; they are spread over the split evenly.
        max_new_tokens: of an answer.
        batch_size: rows at once.
        compute: device and precision.
        before: reads the model as it was before training; None: nobody knows it.

    Returns:
        What was compared, and the mean scores with those of `before` (`answers`).
    """
    chosen = np.unique(np.linspace(0, split.num_rows - 1, min(num_rows, split.num_rows)).round().astype(int))
    asked = [_asked(split.row(int(i)), prompts.ends, max_new_tokens) for i in chosen]
    decode = lambda ids: prompts.tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    references = [decode(reference).strip() for _, reference in asked]
    how = Sampling(
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        top_k=None,
        top_p=1.0,
        min_p=0.0,
        repetition_penalty=1.0,
        seed=0,
        stop=(),
    )

    def written(model: PreTrainedModel, name: str) -> list[Answer]:
        writer = Writer(model.to(compute.device, DTYPES[compute.precision]).eval(), prompts, how, slides=False)
        with console.progress(f"writing answers{name}", total=len(asked), unit="rows") as advance:
            ids = [prompt for prompt, _ in asked]
            return writer.answers(ids, keys=range(len(ids)), batch_size=batch_size, advance=advance)

    after = written(model, "")
    old_model = before()
    old = [answer.text.strip() for answer in written(old_model, ", as before training")] if old_model is not None else None
    compared = [
        Compared(
            row=int(chosen[i]),
            prompt=decode(asked[i][0]).strip(),
            reference=references[i],
            before=old[i] if old is not None else None,
            answer=after[i].text.strip(),
            finish_reason=after[i].finish_reason,
            scores=_scores(after[i].text.strip(), references[i]),
        )
        for i in range(len(asked))
    ]
    told = {"rows": len(compared)}
    if old is not None:
        told["before"] = _mean([_scores(text, reference) for text, reference in zip(old, references, strict=True)])
    return compared, {**_mean([c.scores for c in compared]), "answers": told}


def _asked(row: dict[str, Any], ends: frozenset[int], most: int) -> tuple[list[int], list[int]]:
    """What the model reads of a row, and what it should write: the last answer, or the second half of plain text."""
    ids = list(map(int, row["input_ids"]))
    if "pair" in row:  # the chosen answer comes first
        start, end = map(int, row["pair"][:2])
        return ids[:start], [token for token in ids[start:end] if token not in ends]
    if "answers" not in row:
        half = max(1, len(ids) // 2)
        return ids[:half], ids[half : half + most]
    start, end = map(int, row["answers"][-2:])
    first = 0
    if "position_ids" in row:  # several conversations share the row
        first = int(np.flatnonzero(np.asarray(row["position_ids"])[:start] == 0)[-1])
    return ids[first:start], [token for token in ids[start:end] if token not in ends]


def _scores(answer: str, reference: str) -> dict[str, float]:
    return {"exact_match": float(answer == reference), **rouge(answer, reference)}


def _mean(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([score[name] for score in scores])) for name in SCORES}
