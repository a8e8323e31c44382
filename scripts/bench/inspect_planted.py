"""What `llmtune inspect` finds of what was planted in SST-2: copies, leaks, and flipped labels.

    python scripts/bench/inspect_planted.py DATA

DATA holds sst2/{train,dev,test}.csv. Rows that are near copies, leaks or in doubt before anything is planted count as found
wrongly, so that precision is a lower bound. Planted are 1,000 exact copies of train rows and 1,000 with one word left out or
exchanged for another one, 250 test rows among the train rows as they are and 250 so edited; and 5 % of the train labels are
flipped.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from llmtune.data import duplicates
from llmtune.data.label_errors import label_errors
from llmtune.inspection.copies import THRESHOLD

SEEDS = (0, 1, 2)
NEAR = {"threshold": THRESHOLD, "shingle_size": 5}


def rows(file: Path) -> tuple[list[str], list[str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    return [row["text"] for row in found], [row["label"] for row in found]


def edited(text: str, words: list[str], rng: np.random.Generator) -> str:
    """The text with one word left out, or exchanged for another one."""
    parts = text.split()
    place = int(rng.integers(len(parts)))
    parts[place : place + 1] = [] if rng.random() < 0.5 else [words[int(rng.integers(len(words)))]]
    return " ".join(parts)


def column(texts: list[str]) -> list[pa.ChunkedArray]:
    return [pa.chunked_array([texts])]


def score(found: np.ndarray, planted: np.ndarray) -> str:
    hits = int((found & planted).sum())
    return f"{hits:,} of {planted.sum():,} | {hits / planted.sum():.3f} | {hits / max(found.sum(), 1):.3f}"


def copies_and_leaks(texts: list[str], test: list[str], seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    words = [word for text in texts for word in text.split()]
    long = [text for text in texts if len(text.split()) >= 10]
    exact = [texts[i] for i in rng.choice(len(texts), 1000, replace=False)]
    light = [edited(long[i], words, rng) for i in rng.choice(len(long), 1000, replace=False)]
    leaked = rng.choice([i for i, text in enumerate(test) if len(text.split()) >= 10], 500, replace=False)
    train = [*texts, *exact, *light, *(test[i] for i in leaked[:250]), *(edited(test[i], words, rng) for i in leaked[250:])]
    kinds = np.repeat(["", "exact", "light", "leak"], [len(texts), 1000, 1000, 500])
    rows, num_train = column([*train, *test]), len(train)
    exact, near = duplicates.exact_clusters(rows), duplicates.near_clusters(rows, **NEAR)
    is_first, is_near_first = (np.arange(num_train) == found[:num_train] for found in (exact, near))
    is_twin, is_near_twin = (np.isin(found[num_train:], found[:num_train]) for found in (exact, near))
    is_leaked, is_nearly_leaked = np.zeros(len(test), bool), np.zeros(len(test), bool)
    is_leaked[leaked[:250]] = is_nearly_leaked[leaked[250:]] = True
    return [
        ("exact copies", score(~is_first, kinds == "exact")),
        ("edited copies", score(~is_near_first & (kinds != "exact"), kinds == "light")),
        ("exact leaks", score(is_twin, is_leaked)),
        ("edited leaks", score(is_near_twin & ~is_twin, is_nearly_leaked)),
    ]


def flipped(texts: list[str], labels: list[str], seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    is_flipped = np.zeros(len(texts), bool)
    is_flipped[rng.choice(len(texts), len(texts) // 20, replace=False)] = True
    given = [names[1 - names.index(label)] if wrong else label for label, wrong in zip(labels, is_flipped, strict=True)]
    found = label_errors(column(texts), pa.chunked_array([given]), seed=seed)
    first = np.zeros(len(texts), bool)
    first[np.argsort(found.score_N, kind="stable")[:100]] = True
    return [
        ("flipped labels", score(found.is_likely_N, is_flipped)),
        ("flipped labels, the 100 surest", score(first, is_flipped)),
    ]


def main() -> None:
    folder = Path(sys.argv[1]) / "sst2"
    (texts, labels), (test, _) = rows(folder / "train.csv"), rows(folder / "test.csv")
    print("| planted | seed | found | recall | precision |\n|---|---|---|---|---|")
    for seed in SEEDS:
        for name, told in [*copies_and_leaks(texts, test, seed), *flipped(texts, labels, seed)]:
            print(f"| {name} | {seed} | {told} |", flush=True)


if __name__ == "__main__":
    main()
