"""Ways to compute the same training steps, in turns, step by step: what an override is worth on this machine.

    python scripts/bench/steps.py OVERRIDE... --ways "hardware.precision=fp32" "hardware.precision=bf16" [--steps 60]

Each way is a string of overrides, parted by spaces, beside those that all share. All of them are built in this process, so that
what else the machine does meets them alike. Prints a Markdown table: the median time of a step, and the median over the steps
of its time as a multiple of that of the first way.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from in_process import steps, trainer_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--ways", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=5, help="first steps that do not count")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("LLMTUNE_CACHE", scratch)
        ways = {way: steps(trainer_of(Path(scratch), *given.overrides, *way.split()), given.steps) for way in given.ways}
        turns = [{way: next(results) for way, results in ways.items()} for _ in range(given.steps)][given.warm_up :]
    first = given.ways[0]
    print(f"\n| | a step, ms | tokens/s | time beside that of `{first}` |\n|---|---|---|---|")
    for way in given.ways:
        seconds = [turn[way].seconds for turn in turns]
        rate = sum(turn[way].num_tokens for turn in turns) / sum(seconds)
        beside = statistics.median(turn[way].seconds / turn[first].seconds for turn in turns)
        print(f"| `{way}` | {statistics.median(seconds) * 1e3:.1f} | {rate:,.0f} | {beside:.3f} |")


if __name__ == "__main__":
    main()
