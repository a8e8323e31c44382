"""Leave out or exchange words. Wei and Zou 2019, EDA: https://aclanthology.org/D19-1670

Words are what stands between spaces. In Chinese and Japanese, which are written without them, they are the characters, or
what a segmenter finds.
"""

import numpy as np

from llmtune.data.segments import Patterns, free, joined, pieces, spans_of


def drop(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, chinese: str) -> str:
    """The text without the words that chance leaves out, each with probability `rate`; one always stays."""
    words = pieces(text, chinese=chinese)
    if len(words) < 2:
        return text
    kept = rng.random(len(words)) >= rate
    if protect:
        candidates = np.zeros(len(words), dtype=bool)
        candidates[free(spans_of(words), text, protect)] = True
        kept |= ~candidates
    if kept.all():
        return text
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return joined([pair for pair, keep in zip(words, kept.tolist(), strict=True) if keep]).lstrip()


def swap(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, chinese: str) -> str:
    """The text with pairs of words exchanged: a share `rate` of the number of words, at least one; the spaces stay."""
    spaces_and_words = pieces(text, chinese=chinese)
    movable = free(spans_of(spaces_and_words), text, protect) if protect else range(len(spaces_and_words))
    if len(movable) < 2 or rate == 0:
        return text
    words = [word for _, word in spaces_and_words]
    times = max(1, round(rate * len(words)))
    firsts, others = rng.integers(len(movable), size=times).tolist(), rng.integers(len(movable) - 1, size=times).tolist()
    for first, other in zip(firsts, others, strict=True):
        i, j = movable[first], movable[other + (other >= first)]
        words[i], words[j] = words[j], words[i]
    return joined([(space, word) for (space, _), word in zip(spaces_and_words, words, strict=True)])
