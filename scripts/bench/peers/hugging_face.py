"""The transformers Trainer as its own examples use it, with our clock. To be called in llmtune's environment: same versions.

Rows are tokenized before the clock runs, and padded to the longest of their batch.
"""

import csv
import math
from pathlib import Path
from typing import Any

from common import Clock, Result


def sequence_classifier(weights: str, num_labels: int) -> Any:
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(weights, num_labels=num_labels)


def tokenized(file: str, tokenizer: Any, names: list[str] | None, *, max_length: int) -> tuple[Any, list[str]]:
    """The rows of a CSV file as a datasets.Dataset, and the label names, which are sorted if they are not given."""
    from datasets import Dataset

    with Path(file).open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    names = names or sorted({row["label"] for row in rows})
    encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length, return_token_type_ids=False)
    return Dataset.from_dict({**encoded, "labels": [names.index(row["label"]) for row in rows]}), names


class Counting:
    """A collator that notes the tokens and examples of each batch. The Trainer fetches batches ahead of the steps."""

    def __init__(self, collate: Any):
        self._collate = collate
        self.counts: list[dict[str, int]] = []

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._collate(rows)
        mask = batch.get("attention_mask")
        num_tokens = int(mask.sum()) if mask is not None else batch["input_ids"].numel()
        self.counts.append({"tokens": num_tokens, "examples": len(rows)})
        return batch


def clock_callback(clock: Clock, counting: Counting) -> Any:
    """Ticks at the end of each optimizer step; steps are made of one batch each."""
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.tick(**counting.counts[state.global_step - 1])

    return Ticking()


def classify(
    weights: str, train: str, test: str, folder: str, sampling: str, seed: int, epochs: float, batch_size: int, lr: float
) -> Result:
    """To be called: fine-tune a classifier in bf16 as recipe bert_cls does; its steps and test accuracy.

    Args:
        sampling: `train_sampling_strategy`: 'random' or 'group_by_length'.
    """
    import numpy as np
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(weights)
    rows, names = tokenized(train, tokenizer, None, max_length=128)
    counting, clock = Counting(DataCollatorWithPadding(tokenizer)), Clock()
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=64,
        learning_rate=lr,
        lr_scheduler_type="linear",
        warmup_steps=0.06,  # below 1: a share of all steps
        weight_decay=0.01,
        train_sampling_strategy=sampling,
        bf16=True,
        use_cpu=True,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        sequence_classifier(weights, len(names)),
        arguments,
        counting,
        rows,
        processing_class=tokenizer,
        callbacks=[clock_callback(clock, counting)],
        compute_metrics=lambda found: {"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))},
    )
    trainer.train()
    if len(clock.steps) != math.ceil(len(rows) / batch_size * epochs):
        raise RuntimeError(f"{len(clock.steps)} steps were seen for {len(rows)} rows")
    tested, _ = tokenized(test, tokenizer, names, max_length=128)
    return {"steps": clock.steps, "accuracy": trainer.evaluate(tested)["eval_accuracy"]}
