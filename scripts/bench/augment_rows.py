"""Rows that every augmenter changes per second of one core: python scripts/bench/augment_rows.py DATA [--repeat N]

DATA holds sst2/train.csv and chnsenticorp/train.tsv. Prints a Markdown table: the first epoch, in which words are looked up,
and the median of later ones. Drawing the generator of each row is part of the time, tokenizing is not.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

from llmtune.config import compose
from llmtune.data.augment import registry
from llmtune.randomness import generator

OPTIONS = ["drop", "swap", "synonyms", "insert", "characters", "keyboard", "homophones", "casing", "punctuation"]
CHINESE = {
    "drop": {"chinese": "words"},
    "swap": {"chinese": "words"},
    "synonyms": {"dictionary": "cilin"},
    "insert": {"dictionary": "cilin"},
}


def rows_per_second(augmenter: registry.Augmenter, texts: list[str], epoch: int) -> float:
    started = time.process_time()
    for number, text in enumerate(texts):
        augmenter({"text": text}, generator(0, "augment", epoch, number))
    return len(texts) / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with (args.data / "sst2" / "train.csv").open(encoding="utf-8") as file:
        english = [row["text"] for row in csv.DictReader(file)]
    chinese = [line.split("\t")[0] for line in (args.data / "chnsenticorp" / "train.tsv").open(encoding="utf-8")]
    config = compose.compose("train", ["data.train_file=x.csv", f"augment=[{','.join(OPTIONS)}]"]).config.augment
    for name, texts in (("SST-2", english), ("ChnSentiCorp", chinese)):
        print(f"{name}: {len(texts):,} rows of {statistics.mean(map(len, texts)):.0f} characters")
    print("\n| augmenter | SST-2, first epoch | later | ChnSentiCorp, first epoch | later |\n|---|---|---|---|---|")
    chosen = [(name, {name: section}) for name, section in config.items()]
    for name, augment in [*chosen, ("all of these", config)]:
        cells = []
        for texts, changes in ((english, {}), (chinese, CHINESE)):
            changed = {n: section.model_copy(update=changes.get(n, {})) for n, section in augment.items()}
            augmenter = registry.build(changed)
            first, *later = (rows_per_second(augmenter, texts, epoch) for epoch in range(args.repeat + 1))
            cells += [f"{first:,.0f}", f"{statistics.median(later):,.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
