"""What grows with the data: llmtune's time and memory for more rows and for longer ones, with one and two threads.

    python scripts/bench/peers/growth.py [--rows 10000 100000 1000000] [--lengths 32 128 512 2048] [--steps 60]

The models are an LSTM of width 128 and a BERT of 2 layers of width 128, from scratch, in float32; a step holds about 4,096
tokens. Rows are made with a seed and prepared in a process of their own. More rows are measured at the first length, longer
ones at the first number of rows, as far as a file then holds no more than --words words. Prints a Markdown table: the median
time of a step for each token of it, padding not counted; the most memory of the training process; the seconds from its start
to the end of its first step; time and memory of the preparation.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import common
import made_rows

MODELS = {"lstm": ["model=lstm"], "bert": ["model=bert", "model.size=tiny", "tokenizer=word"]}
TOKENS, SKIP = 4096, 10  # of a step; steps that do not count


def preprocess(words: list[str]) -> common.Result:
    """To be called: `llmtune preprocess`."""
    from llmtune.cli import main

    if main(["preprocess", *words]):
        raise RuntimeError("llmtune preprocess has failed")
    return {}


def measured(model: str, num_rows: int, length: int, threads: int, steps: int, folder: Path) -> Sequence[str]:
    file = folder / f"{num_rows}-{length}.csv"
    if not file.is_file():
        made_rows.write(file, num_rows, made_rows.syllables(), shortest=length // 2, longest=length - 2)
    words = [
        *MODELS[model],
        f"data.train_file={file}",
        "split.validation_fraction=0",
        "split.test_fraction=0",
        f"tokenizer.max_length={length}",
        "training.epochs=null",
        f"training.max_steps={steps}",
        f"training.batch_size={max(1, TOKENS // length)}",
        "hardware.device=cpu",
        "hardware.precision=fp32",
        f"hardware.num_threads={threads}",
    ]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        os.environ["LLMTUNE_CACHE"] = cache
        prepared = common.call(preprocess, words=words, watch=True)
        started = time.perf_counter()  # the clock of all processes
        found = common.call(common.llmtune, words=words, folder=folder)
    times = [step["time"] for step in found["steps"]]
    taken = [(end - start) / step["tokens"] for start, end, step in zip(times, times[1:], found["steps"][1:], strict=False)]
    memory = json.loads((Path(found["run"]) / "result.json").read_text())["peak_memory"]
    return [
        model,
        f"{num_rows:,}",
        f"{length:,}",
        str(threads),
        f"{statistics.median(taken[SKIP:]) * 1e6:.2f}",
        f"{memory / 2**20:,.0f}",
        f"{times[0] - started:.1f}",
        f"{prepared['seconds']:.1f}",
        f"{prepared['memory'] / 2**20:,.0f}",
    ]


def main() -> None:
    parser = common.parser(__doc__, rounds=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512, 2048])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--words", type=int, default=10_000_000, help="of a file of longer rows")
    arguments = parser.parse_args()
    if arguments.steps <= SKIP + 1:
        parser.error(f"--steps: more than {SKIP + 1}")
    longer = [(min(arguments.rows[0], arguments.words // length), length) for length in arguments.lengths[1:]]
    sizes = [(num_rows, arguments.lengths[0]) for num_rows in arguments.rows] + longer
    heads = ["model", "rows", "length", "threads", "µs a token", "most memory, MiB", "first step, s"]
    rows = []
    with common.work_folder(None) as folder:
        for _ in range(arguments.rounds):
            for model in arguments.models:
                for num_rows, length in sizes:
                    for threads in [arguments.threads] if arguments.threads else (1, 2):
                        rows.append(measured(model, num_rows, length, threads, arguments.steps, folder))
    common.print_table([*heads, "preparing, s", "preparing, MiB"], rows)


if __name__ == "__main__":
    main()
