"""Texts made with a seed: words of a vocabulary, the first ones most often, as Zipf has it."""

from pathlib import Path

CHUNK = 10_000  # rows


def vocabulary(weights: Path) -> list[str]:
    """The whole words of a BERT's vocab.txt, in its order: about the most frequent first."""
    entries = (weights / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [entry for entry in entries if len(entry) > 1 and entry.isascii() and entry.isalpha()]


def syllables() -> list[str]:
    """8,000 words of three syllables."""
    parts = [a + b for a in "bdfklmnprst" for b in "aeiou"][:20]
    return [a + b + c for a in parts for b in parts for c in parts]


def write(file: Path, num_rows: int, words: list[str], *, shortest: int, longest: int, seed: int = 0) -> Path:
    """A CSV file with the columns text and label (yes or no).

    Args:
        file: to write.
        num_rows: how many rows.
        words: of the texts.
        shortest, longest: words of a text; each number between them equally often.
        seed: of the draws.
    """
    import numpy as np

    rng, known = np.random.default_rng(seed), np.array(words, dtype=object)
    shares = 1 / np.arange(10, 10 + len(words))  # the very first ones would be a third of the text
    shares /= shares.sum()
    with file.open("w", encoding="utf-8") as written:
        written.write("text,label\n")
        for start in range(0, num_rows, CHUNK):
            lengths = rng.integers(shortest, longest + 1, min(CHUNK, num_rows - start))
            texts = np.split(known[rng.choice(len(words), lengths.sum(), p=shares)], np.cumsum(lengths)[:-1])
            labels = rng.integers(0, 2, len(lengths))
            written.writelines(f"{' '.join(text)},{('no', 'yes')[label]}\n" for text, label in zip(texts, labels, strict=True))
    return file
