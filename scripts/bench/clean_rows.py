"""Rows a second of each cleaner of `clean=`, beside tokenizing them, on one core.

    python scripts/bench/clean_rows.py TABLE.csv [--rows 1000000] [--near 100000]

TABLE.csv has a column text. Its texts are repeated up to the number of rows; for duplicates they are made distinct by a number
at their end, and every tenth is a near copy of the one before. Prints a Markdown table: millions of rows a second of CPU time,
and the most memory of the process so far.
"""

import argparse
import csv
import resource
import time
from collections.abc import Callable

import pyarrow as pa
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from llmtune.data import duplicates
from llmtune.data.clean import text
from llmtune.data.clean.words import num_words

ROWS = 20_000  # at a time, as llmtune does

CLEANERS: dict[str, Callable[[pa.Array], object]] = {
    "unicode": lambda texts: text.unicode(texts, form="NFC"),
    "mojibake": text.mojibake,
    "html": lambda texts: text.html(texts, tags=True, entities=True),
    "urls": lambda texts: text.urls(texts, replacement=""),
    "control": text.control,
    "whitespace": lambda texts: text.whitespace(texts, keep_lines=False),
    "length, in words": num_words,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--near", type=int, default=100_000, help="rows of the near duplicates")
    args = parser.parse_args()
    with open(args.table, encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    rows = chunked((texts * (args.rows // len(texts) + 1))[: args.rows])
    lengths = sum(map(len, texts)) / len(texts)
    print(f"{args.rows:,} rows of {lengths:.0f} characters\n\n| cleaner | million rows/s | most memory, MiB |\n|---|---|---|")
    tokenizer = word_pieces(texts)
    tell("tokenizing by WordPiece", args.rows, lambda: by_chunk(rows, lambda c: tokenizer.encode_batch_fast(c.to_pylist())))
    for name, cleaner in CLEANERS.items():
        tell(name, args.rows, lambda cleaner=cleaner: by_chunk(rows, cleaner))
    distinct = chunked([f"{t} {i}" for i, t in enumerate(rows.to_pylist())])
    tell("duplicates", args.rows, lambda: duplicates.exact_clusters([distinct]))
    copies = distinct[: args.near].to_pylist()
    for i in range(1, len(copies), 10):
        copies[i] = copies[i - 1] + " ."
    near = chunked(copies)
    how = {"threshold": 0.8, "shingle_size": 5}
    tell(f"near duplicates, {args.near:,} rows", args.near, lambda: duplicates.near_clusters([near], **how))
    half = args.near // 2
    leaks = lambda: duplicates.near_matches([near[:half]], [near[half:]], **how)  # noqa: E731
    tell(f"near leaks, {half:,} rows in as many", args.near, leaks)


def chunked(texts: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts[i : i + ROWS]) for i in range(0, len(texts), ROWS)])


def by_chunk(rows: pa.ChunkedArray, function: Callable[[pa.Array], object]) -> None:
    for chunk in rows.chunks:
        function(chunk)


def tell(name: str, num_rows: int, work: Callable[[], object]) -> None:
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {num_rows / seconds / 1e6:.3f} | {peak:.0f} |", flush=True)


def word_pieces(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=8000, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


if __name__ == "__main__":
    main()
