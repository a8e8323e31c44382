"""What each augmenter and objective costs: seconds of a step, as a multiple of those of a step without.

    python scripts/bench/objectives.py TRAIN.csv WEIGHTS [--steps 8] [--rounds 5]

TRAIN.csv has the columns text and label, WEIGHTS is the directory of a BERT. All variants of a model are built in this process
and take turns over the same steps; each figure is the median over the rounds. Prints a Markdown table.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from in_process import steps, trainer_of

from llmtune.training.trainer import Trainer

NONE = "none"
WAYS = {
    NONE: [],
    "augment=cutoff": ["augment=cutoff"],
    "augment=mask": ["augment=mask"],
    "augment=mixup": ["augment=mixup"],
    "augment=word_mixup": ["augment=word_mixup"],
    "augment=fgm": ["augment=fgm"],
    "objective=l1": ["objective=l1"],
    "objective=l2": ["objective=l2"],
    "objective=label_smoothing": ["objective=label_smoothing"],
    "objective=r_drop": ["objective=r_drop"],
}


def seconds(trainer: Trainer, num_steps: int) -> float:
    """Of the same steps each time, batches and losses alike."""
    return sum(result.seconds for result in steps(trainer, num_steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train")
    parser.add_argument("weights")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    train = f"data.train_file={Path(given.train).resolve()}"
    models = {
        "MiniLM": ["model=bert", f"model.pretrained={Path(given.weights).resolve()}"],
        "LSTM": ["model=lstm"],
    }
    table: dict[str, dict[str, float]] = {way: {} for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.setdefault("LLMTUNE_CACHE", scratch)
        for model, overrides in models.items():
            trainers = {way: trainer_of(Path(scratch), train, *overrides, *more) for way, more in WAYS.items()}
            for trainer in trainers.values():
                seconds(trainer, 2)  # to warm up
            rounds = [{way: seconds(trainer, given.steps) for way, trainer in trainers.items()} for _ in range(given.rounds)]
            for way in WAYS:
                table[way][model] = statistics.median(times[way] / times[NONE] for times in rounds)
            print(f"{model}: {statistics.median(times[NONE] for times in rounds) / given.steps * 1000:.0f} ms a step without")
    print(f"\n| | {' | '.join(models)} |\n|---|{'---|' * len(models)}")
    for way, ratios in table.items():
        print(f"| `{way}` | {' | '.join(f'{ratio:.2f}' for ratio in ratios.values())} |")


if __name__ == "__main__":
    main()
