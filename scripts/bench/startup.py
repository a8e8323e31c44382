"""How long llmtune takes to answer: python scripts/bench/startup.py [--repeat N]. Prints a Markdown table of medians.

The time to the first optimizer step is taken from the command's start to the first line of metrics.jsonl, data prepared.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "llmtune": [],
    "llmtune --help": ["--help"],
    "llmtune train --help": ["train", "--help"],
    "a config mistake": ["train", "+recipe=bert_cls", "optimizer.lrr=1"],
    "llmtune show train +recipe=bert_cls": ["show", "train", "+recipe=bert_cls"],
}


def seconds(program: str, words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([program, *words], capture_output=True)
    return time.perf_counter() - started


def first_step(program: str, folder: Path) -> float:
    """From the start of the command to the end of the first optimizer step, by the clock in the log."""
    started = time.time()
    words = [
        "train",
        "+recipe=bert_cls",
        f"output_dir={folder}",
        "training.epochs=null",
        "training.max_steps=1",
        "split.validation_fraction=0",
    ]
    subprocess.run([program, *words], capture_output=True, check=True)
    log = next(folder.glob("bert_cls/2*/metrics.jsonl"))
    return json.loads(log.read_text().splitlines()[0])["time"] - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    program = shutil.which("llmtune", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    print("| command | median s |\n|---|---|")
    for name, words in COMMANDS.items():
        seconds(program, words)
        print(f"| {name} | {statistics.median(seconds(program, words) for _ in range(repeat)):.2f} |", flush=True)
    times = []
    for _ in range(max(3, repeat // 2) + 1):
        with tempfile.TemporaryDirectory() as folder:
            times.append(first_step(program, Path(folder)))
    print(f"| bert_cls to its first optimizer step, data prepared | {statistics.median(times[1:]):.2f} |")


if __name__ == "__main__":
    main()
