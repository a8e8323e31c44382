"""`evaluate` with answers that the model writes, beside those of the weights that training started from."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from llmtune import console
from llmtune.config.schema import StageConfig
from llmtune.config.sections.training import EvaluationConfig
from llmtune.data.prepared import Split
from llmtune.errors import LlmtuneError
from llmtune.evaluation.generated import Compared, compare
from llmtune.generation.prompts import prompts_for
from llmtune.training.precision import Compute
from llmtune.training.restore import Restored

MOST_TOLD, LONGEST_TOLD = 3, 300  # answers in the terminal, and characters of each text


def answers(
    evaluation: EvaluationConfig, trained: StageConfig, restored: Restored, split: Split, *, compute: Compute
) -> tuple[list[Compared], dict[str, Any]]:
    """See `generated.compare`. The restored model's weights may be changed."""
    return compare(
        restored.model,
        prompts_for(restored),
        split,
        num_rows=evaluation.generate_rows,
        max_new_tokens=evaluation.max_new_tokens,
        batch_size=evaluation.batch_size,
        compute=compute,
        before=lambda: _before_training(trained, restored),
    )


def _before_training(trained: StageConfig, restored: Restored) -> PreTrainedModel | None:
    """The weights that the stage started from; None where they were random, or are gone."""
    model = trained.model
    if model.type != "run" and not getattr(model, "pretrained", None):
        return None
    try:
        return restored.before()[1]()
    except LlmtuneError as e:
        console.notice(f"nobody knows what was said before training: {e.message}")
        return None


def tell(directory: Path) -> None:
    """Show a few of the answers that an evaluation has written."""
    with (directory / "answers.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, MOST_TOLD)]
    for row in rows:
        texts = [(name, row[name]) for name in ("prompt", "reference", "before", "answer") if row[name] is not None]
        console.result_table(f"row {row['row']}, ROUGE-L {row['rougeL']:.3f}", [(name, _short(text)) for name, text in texts])


def _short(text: str) -> str:
    line = " ⏎ ".join(text.splitlines())
    return line if len(line) <= LONGEST_TOLD else f"{line[:LONGEST_TOLD]}…"
