"""Time and memory of `llmtune inspect` on made rows.

    python scripts/bench/inspect_rows.py [100000 1000000]

Rows are made of words that are as frequent as words are (Zipf), 5 to 30 each, with two classes that some of the words tell;
one row in a hundred is a copy of another one, half of these with a word exchanged. Each number of rows is looked at in a
process of its own, as a user would: reading the file, the tokenizer and the page included. What is told is the wall clock,
the processor's time, and the largest resident size.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VOCABULARY = 30_000


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
    print("| rows | MB | seconds | of the processor | largest resident size, MB |\n|---|---|---|---|---|")
    for num_rows in [int(word) for word in sys.argv[1:]] or [100_000]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.csv"
            write_rows(file, num_rows)
            command = [sys.executable, "-m", "llmtune", "inspect", f"data.train_file={file}"]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LLMTUNE_CACHE": folder}
            begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            seconds = time.monotonic() - begun
            if done.returncode:
                sys.exit(done.stderr)
            print(done.stderr, file=sys.stderr)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            busy, peak = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, used.ru_maxrss / 1024
            print(f"| {num_rows:,} | {file.stat().st_size / 1e6:,.0f} | {seconds:.0f} | {busy:.0f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
