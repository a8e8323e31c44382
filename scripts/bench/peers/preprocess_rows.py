"""Reading and tokenizing a million short texts: `llmtune preprocess` and datasets.map with a fast tokenizer.

    python scripts/bench/peers/preprocess_rows.py WEIGHTS [--rows 1000000] [--rounds 3]

WEIGHTS is the folder of a BERT with its tokenizer; the rows, of 5 to 30 words, are made with a seed. datasets.map works in two
processes, on batches of its own default and of 10,000 rows. Both sides keep the texts beside the tokens and the labels as
numbers. Prints a Markdown table: rows a second without the imports; the most memory of all processes, what they share counted
once; the whole command; and the same command once more, when all is in the cache.
"""

import os
import shutil
import time
from pathlib import Path

import common
import made_rows


def preprocess(file: str, weights: str, cache: str) -> common.Result:
    """To be called: `llmtune preprocess`."""
    from llmtune.cli import main
    from llmtune.commands import preparing

    os.environ["LLMTUNE_CACHE"] = cache
    prepare, seconds = preparing.prepare_stage, []

    def timed(config):
        started = time.perf_counter()
        ready = prepare(config)
        seconds.append(time.perf_counter() - started)
        return ready

    preparing.prepare_stage = timed
    words = ["model=bert", f"model.pretrained={weights}", f"data.train_file={file}", "tokenizer.max_length=128"]
    if main(["preprocess", *words, "split.validation_fraction=0", "split.test_fraction=0"]):
        raise RuntimeError("llmtune preprocess has failed")
    return {"work": seconds[0]}


def mapped(file: str, weights: str, cache: str, batch_size: int) -> common.Result:
    """To be called: the same with datasets."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    rows = load_dataset("csv", data_files=file, split="train", cache_dir=cache)
    labels = {name: i for i, name in enumerate(sorted(rows.unique("label")))}

    def encode(batch):
        how = {"truncation": True, "max_length": 128, "return_attention_mask": False, "return_token_type_ids": False}
        return {**tokenizer(batch["text"], **how), "labels": [labels[name] for name in batch["label"]]}

    rows = rows.map(encode, batched=True, batch_size=batch_size, num_proc=2, remove_columns="label")
    num_tokens = len(rows[0]["input_ids"])  # it can be read
    return {"work": time.perf_counter() - started, "num_tokens": num_tokens}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with common.work_folder(arguments.threads) as folder:
        words = made_rows.vocabulary(arguments.weights)
        file = made_rows.write(folder / "rows.csv", arguments.rows, words, shortest=5, longest=30)
        shared = {"file": file, "weights": arguments.weights.resolve(), "cache": folder / "fresh"}

        def measured(function, **more) -> common.Result:
            shutil.rmtree(shared["cache"], ignore_errors=True)
            first = common.call(function, watch=True, **shared, **more)
            again = common.call(function, **shared, **more)
            return {
                "rows_per_second": arguments.rows / first["work"],
                "memory": first["memory"] / 2**20,
                "first": first["seconds"],
                "again": again["seconds"],
            }

        sides = {
            "llmtune preprocess": lambda number: measured(preprocess),
            "datasets.map": lambda number: measured(mapped, batch_size=1_000),
            "datasets.map, batch_size=10000": lambda number: measured(mapped, batch_size=10_000),
        }
        results = common.in_turns(sides, arguments.rounds)
    columns = {
        "rows/s": ("rows_per_second", ",.0f"),
        "most memory, MiB": ("memory", ",.0f"),
        "command, s": ("first", ".1f"),
        "again, s": ("again", ".1f"),
    }
    common.compare(results, columns, by="rows_per_second")


if __name__ == "__main__":
    main()
