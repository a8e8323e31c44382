"""Memory of `llmtune preprocess` as the rows become more: it should stay as it is.

    python scripts/bench/preprocess_memory.py [--rows 10000 100000 1000000 3000000] [--format parquet] [KEY=VALUE ...]

Makes rows of 8 to 24 words with a seed, prepares them in a process of their own, and reads that process's memory from Linux
every 20 ms. Anonymous memory (RssAnon) is what the process itself holds and nobody can take back; mapped files (RssFile) are
pages of files on the disk, which the system drops where memory is scarce. Prints a Markdown table.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EVERY = 0.02  # seconds between two readings
CHUNK = 50_000  # rows made at once
ROOT = Path(__file__).resolve().parents[2]


def batches(num_rows: int, *, seed: int = 0) -> Iterator[pa.Table]:
    """Columns text, label, author (a group of about 20 rows) and day, the latter two in random order."""
    rng = np.random.default_rng(seed)
    parts = [a + b for a in "bdfklmnprst" for b in "aeiou"][:20]
    words = np.array([a + b + c for a in parts for b in parts for c in parts], dtype=object)
    shares = 1 / np.arange(10, 10 + len(words))
    shares /= shares.sum()
    for start in range(0, num_rows, CHUNK):
        size = min(CHUNK, num_rows - start)
        lengths = rng.integers(8, 25, size)
        drawn = np.split(words[rng.choice(len(words), lengths.sum(), p=shares)], np.cumsum(lengths)[:-1])
        yield pa.table(
            {
                "text": [" ".join(text) for text in drawn],
                "label": np.array(["no", "yes"], dtype=object)[rng.integers(0, 2, size)],
                "author": [f"u{i}" for i in rng.integers(0, max(2, num_rows // 20), size)],
                "day": (np.datetime64("2015-01-01") + rng.integers(0, 3650, size)).astype(str),
            }
        )


def write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def write_jsonl(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("w") as file:
        for table in tables:
            file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())


def write_json(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("w") as file:
        between = "["
        for table in tables:
            file.write(between + ",\n".join(json.dumps(row) for row in table.to_pylist()))
            between = ",\n"
        file.write("]\n")


def write_csv(path: Path, tables: Iterator[pa.Table]) -> None:
    with path.open("w") as file:
        file.write("text,label,author,day\n")
        for table in tables:
            file.writelines(",".join(row.values()) + "\n" for row in table.to_pylist())


WRITERS: dict[str, Callable[[Path, Iterator[pa.Table]], None]] = {
    "parquet": write_parquet,
    "jsonl": write_jsonl,
    "json": write_json,
    "csv": write_csv,
}


def watched(command: list[str], cache: str) -> tuple[float, dict[str, int]]:
    """Seconds of a command, and the most of each kind of memory in bytes."""
    started, most = time.monotonic(), {"RssAnon": 0, "RssFile": 0}
    environment = {**os.environ, "LLMTUNE_CACHE": cache, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            for kind in most:
                if found := re.search(rf"{kind}:\s+(\d+) kB", status):
                    most[kind] = max(most[kind], int(found[1]) * 1024)
            time.sleep(EVERY)
        if process.wait():
            log.seek(0)
            sys.exit(log.read().decode())
    return time.monotonic() - started, most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 3_000_000])
    parser.add_argument("--format", choices=WRITERS, default="parquet")
    parser.add_argument("--folder", type=Path, help="keeps the files there, for another round")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more of the config, such as split=grouped")
    arguments = parser.parse_args()
    print("| rows | file, MB | prepared, MB | anonymous, MiB | mapped, MiB | seconds |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for num_rows in arguments.rows:
            file = (arguments.folder or Path(name)) / f"rows-{num_rows}.{arguments.format}"
            if not file.is_file():
                WRITERS[arguments.format](file, batches(num_rows))
            with tempfile.TemporaryDirectory(dir=name) as cache:
                command = [sys.executable, "-m", "llmtune", "preprocess", f"data.train_file={file}", *arguments.overrides]
                seconds, most = watched(command, cache)
                size = sum(path.stat().st_size for path in Path(cache).rglob("*.arrow"))
            shown = [f"{most[kind] / 2**20:,.0f}" for kind in ("RssAnon", "RssFile")]
            cells = [f"{num_rows:,}", f"{file.stat().st_size / 1e6:,.0f}", f"{size / 1e6:,.0f}", *shown, f"{seconds:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
