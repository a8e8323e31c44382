"""From the command to the end of the first optimizer step, the data prepared before: llmtune and a script around the Trainer.

    python scripts/bench/peers/first_step.py SST2 WEIGHTS [--rounds 7]

SST2 holds train.csv with the columns text and label, WEIGHTS is the folder of MiniLM. The script reads the rows as datasets
does, with the tokenized ones in its cache. Round 0 of both fills caches and does not count. Prints a Markdown table.
"""

import json
import time
from pathlib import Path

import common


def llmtune(words: list[str], folder: str, started: float) -> common.Result:
    """To be called: `llmtune train` for one step; its log tells when that was."""
    from llmtune.cli import main

    if main(["train", *words, "training.resume=never", f"output_dir={folder}"]):
        raise RuntimeError("llmtune train has failed")
    log = max(Path(folder).glob("*/2*/metrics.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    return {"first_step": json.loads(log.read_text().splitlines()[0])["time"] - started}


def trainer(file: str, weights: str, folder: str, started: float) -> common.Result:
    """To be called: the usual script, stopped after one step."""
    from datasets import load_dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    times = []

    class Telling(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            times.append(time.time())

    tokenizer = AutoTokenizer.from_pretrained(weights)
    rows = load_dataset("csv", data_files=file, split="train", cache_dir=f"{folder}/datasets")

    def encode(batch):
        return {
            **tokenizer(batch["text"], truncation=True, max_length=128),
            "labels": [int(y == "positive") for y in batch["label"]],
        }

    rows = rows.map(encode, batched=True, remove_columns=["text", "label"])
    arguments = TrainingArguments(
        output_dir=f"{folder}/trainer",
        max_steps=1,
        per_device_train_batch_size=32,
        learning_rate=1e-4,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    model = AutoModelForSequenceClassification.from_pretrained(weights, num_labels=2)
    collate = DataCollatorWithPadding(tokenizer)
    Trainer(model, arguments, collate, rows, processing_class=tokenizer, callbacks=[Telling()]).train()
    return {"first_step": times[0] - started}


def main() -> None:
    parser = common.parser(__doc__, rounds=7)
    parser.add_argument("sst2", type=Path)
    parser.add_argument("weights", type=Path)
    arguments = parser.parse_args()
    file, weights = (arguments.sst2 / "train.csv").resolve(), arguments.weights.resolve()
    with common.work_folder(arguments.threads) as folder:
        words = [
            "+recipe=bert_cls",
            "data.where={}",
            "data.label_map={}",
            f"data.train_file={file}",
            "split.validation_fraction=0",
            "split.test_fraction=0",
            f"model.pretrained={weights}",
            "training.epochs=null",
            "training.max_steps=1",
            "hardware.device=cpu",
        ]

        def theirs(number: int) -> common.Result:
            return common.call(trainer, file=file, weights=weights, folder=folder, started=time.time())

        sides = {
            "llmtune": lambda number: common.call(llmtune, words=words, folder=folder, started=time.time()),
            "script with the Trainer": theirs,
        }
        common.in_turns(sides, 1)
        results = common.in_turns(sides, arguments.rounds)
    common.compare(results, {"first step after, s": ("first_step", ".2f")}, by="first_step", smaller=True)


if __name__ == "__main__":
    main()
