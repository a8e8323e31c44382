"""Time and memory of planning one epoch of many rows.

    python scripts/bench/plan_memory.py [--rows 1000000 10000000]

Lengths are drawn between 8 and 128 tokens; a step holds 64 rows, or 4,096 tokens. Each plan is made in a process of its own,
whose highest anonymous memory before and after is told apart. Prints a Markdown table.
"""

import argparse
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from llmtune.data.batches import BatchRule, plan_epoch

RULES = {
    "rows, by length": BatchRule(64),
    "rows, any length": BatchRule(64, group_by_length=False),
    "tokens, by length": BatchRule(64, max_tokens=4096),
}


def anonymous() -> int:
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def measured(num_rows: int, name: str) -> str:
    lengths = np.random.default_rng(0).integers(8, 129, num_rows, dtype=np.int32)
    before = most = anonymous()
    is_done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_done.wait(0.01):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    plan = plan_epoch(lengths, RULES[name], seed=0, epoch=0)
    seconds, kept = time.perf_counter() - started, anonymous()
    is_done.set()
    watcher.join()
    sizes = [f"{(memory - before) / num_rows:.0f}" for memory in (most, kept)]
    return f"| {num_rows:,} | {name} | {len(plan):,} | {seconds:.1f} | {' | '.join(sizes)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measured(int(arguments.one[0]), arguments.one[1]))
        return
    print("| rows | a step holds | steps | seconds | most bytes a row | bytes a row kept |\n|---|---|---|---|---|---|")
    for num_rows in arguments.rows:
        for name in RULES:
            subprocess.run([sys.executable, __file__, "--one", str(num_rows), name], check=True)


if __name__ == "__main__":
    main()
