"""Evaluating a MiniLM classifier on 100,000 rows in float32: `llmtune evaluate` and Trainer.evaluate.

    python scripts/bench/peers/evaluate_rows.py WEIGHTS [--rows 100000] [--rounds 3]

WEIGHTS is the folder of the model; it is given a head by one step of training, and both sides score that checkpoint, 64 rows at
a time. The rows, of 5 to 40 words, are made with a seed. Prints a Markdown table: rows a second of the evaluation alone, which
for llmtune includes keeping the answers and all of its metrics; the whole command, tokenizing included, and for llmtune the
report; the most memory; loss and accuracy.
"""

import json
import os
import time
from pathlib import Path

import common
import hugging_face
import made_rows


def evaluate(run: str, file: str, cache: str) -> common.Result:
    """To be called: `llmtune evaluate` of a file, nothing prepared."""
    import llmtune.evaluation.metrics  # noqa: F401 - imported with the first evaluation otherwise: start-up
    from llmtune.cli import main
    from llmtune.evaluation import evaluate as module

    os.environ["LLMTUNE_CACHE"] = cache
    original, seconds = module.evaluate, []

    def timed(*args, **kwargs):
        started = time.perf_counter()
        found = original(*args, **kwargs)
        seconds.append(time.perf_counter() - started)
        return found

    module.evaluate = timed
    words = [run, f"file={file}", "evaluation.precision=fp32", "evaluation.batch_size=64", "hardware.device=cpu"]
    if main(["evaluate", *words]):
        raise RuntimeError("llmtune evaluate has failed")
    metrics = json.loads((Path(run) / "evaluation" / Path(file).name / "metrics.json").read_text())
    return {"work": seconds[0], "loss": metrics["loss"], "accuracy": metrics["accuracy"]}


def trainer(checkpoint: str, file: str, folder: str, sampling: str) -> common.Result:
    """To be called: Trainer.evaluate; its sampling strategy counts for evaluations too."""
    import numpy as np
    from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = hugging_face.sequence_classifier(checkpoint, 2)
    names = [model.config.id2label[i] for i in range(2)]
    rows, _ = hugging_face.tokenized(file, tokenizer, names, max_length=128)
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_eval_batch_size=64,
        train_sampling_strategy=sampling,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    made = Trainer(
        model,
        arguments,
        DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda found: {"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))},
    )
    started = time.perf_counter()
    found = made.evaluate(rows)
    return {"work": time.perf_counter() - started, "loss": found["eval_loss"], "accuracy": found["eval_accuracy"]}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    with common.work_folder(arguments.threads) as folder:
        words = made_rows.vocabulary(arguments.weights)
        file = made_rows.write(folder / "rows.csv", arguments.rows, words, shortest=5, longest=40)
        few = made_rows.write(folder / "few.csv", 64, words, shortest=5, longest=40, seed=1)
        overrides = [
            "model=bert",
            f"model.pretrained={arguments.weights.resolve()}",
            f"data.train_file={few}",
            "split.validation_fraction=0",
            "split.test_fraction=0",
            "tokenizer.max_length=128",
            "training.max_steps=1",
            "hardware.device=cpu",
        ]
        run = Path(common.call(common.llmtune, words=overrides, folder=folder)["run"])

        def finished(found: common.Result) -> common.Result:
            return {**found, "rows_per_second": arguments.rows / found["work"], "memory": found["memory"] / 2**20}

        def ours(number: int) -> common.Result:
            return finished(common.call(evaluate, watch=True, run=run, file=file, cache=folder / f"cache-{number}"))

        def theirs(sampling: str) -> common.Result:
            how = {"checkpoint": run / "checkpoints" / "best", "folder": folder / "trainer", "sampling": sampling}
            return finished(common.call(trainer, watch=True, file=file, **how))

        sides = {
            "llmtune evaluate": ours,
            "Trainer.evaluate": lambda number: theirs("random"),
            "Trainer.evaluate, train_sampling_strategy=group_by_length": lambda number: theirs("group_by_length"),
        }
        results = common.in_turns(sides, arguments.rounds)
    columns = {
        "rows/s": ("rows_per_second", ",.0f"),
        "command, s": ("seconds", ".1f"),
        "most memory, MiB": ("memory", ",.0f"),
        "loss": ("loss", ".5f"),
        "accuracy": ("accuracy", ".5f"),
    }
    common.compare(results, columns, by="rows_per_second")


if __name__ == "__main__":
    main()
