"""Time and memory of `llmtune inspect`, and of `llmtune preprocess` with six cleaners, on made rows.

    python scripts/bench/look_and_clean.py [100000 1000000]

Rows are made of words that are as frequent as words are (Zipf), 5 to 30 each, with two classes that some of the words tell;
one row in a hundred is a copy of another one, half of these with a word exchanged. Each number of rows is looked at in a
process of its own, as a user would: reading the file, the tokenizer and the page included. What is told is the wall clock,
the processor's time, and the largest resident size.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VOCABULARY = 30_000
CLEAN = "[unicode,html,whitespace,duplicates,near_duplicates,leaks]"
VERBS = {"inspect": [], f"preprocess clean={CLEAN}": ["model=lstm", "tokenizer.max_length=64", f"clean={CLEAN}"]}


def write_rows(file: Path, num_rows: int) -> None:
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(VOCABULARY)])
    shares = 1 / np.arange(10, VOCABULARY + 10)
    shares /= shares.sum()
    with file.open("w", encoding="utf-8") as lines:
        lines.write("text,label\n")
        before: list[str] = []
        for start in range(0, num_rows, 10_000):
            size = min(10_000, num_rows - start)
            counts = rng.integers(5, 31, size)
            drawn = np.split(rng.choice(VOCABULARY, counts.sum(), p=shares), np.cumsum(counts)[:-1])
            labels = np.array([(row % 2).mean() > 0.5 for row in drawn])
            for row, label, chance in zip(drawn, labels, rng.random(size), strict=True):
                if chance < 0.01 and before:
                    text = before[int(rng.integers(len(before)))].split()
                    if chance < 0.005:
                        text[int(rng.integers(len(text)))] = words[int(rng.integers(VOCABULARY))]
                    lines.write(f"{' '.join(text)},{'yes' if label else 'no'}\n")
                else:
                    text = " ".join(words[row])
                    before = [*before[-999:], text]
                    lines.write(f"{text},{'yes' if label else 'no'}\n")


def main() -> None:
    print("| rows | MB | command | seconds | of the processor | largest resident size, MB |\n|---|---|---|---|---|---|")
    for num_rows in [int(word) for word in sys.argv[1:]] or [100_000]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.csv"
            write_rows(file, num_rows)
            for name, words in VERBS.items():
                cells = " | ".join(f"{value:,.0f}" for value in measured([name.split()[0], f"data.train_file={file}", *words]))
                print(f"| {num_rows:,} | {file.stat().st_size / 1e6:,.0f} | `{name}` | {cells} |", flush=True)


def measured(words: list[str]) -> tuple[float, float, float]:
    """Seconds of a command, those of the processor, and its largest resident size in MB; its cache is empty."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LLMTUNE_CACHE": folder}
        log = Path(folder) / "log"
        begun = time.monotonic()
        with log.open("wb") as told:
            child = subprocess.Popen(
                [sys.executable, "-m", "llmtune", *words], cwd=folder, env=environment, stdout=told, stderr=told
            )
            _, status, used = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begun
        print(log.read_text(), file=sys.stderr)
        if status:
            sys.exit(f"{' '.join(words)} has failed")
        return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


if __name__ == "__main__":
    main()
