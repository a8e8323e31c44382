"""How much of a reference an answer says: ROUGE-1, ROUGE-2 and ROUGE-L. Lin 2004: https://aclanthology.org/W04-1013

As in the package rouge_score without stemming, but that letters of all scripts make words, and each ideograph is one.
"""

import re
from collections import Counter
from collections.abc import Sequence

from llmtune.data.ideographs import CLASS

_WORD = re.compile(rf"[{CLASS}]|[^\W_{CLASS}]+")


def words(text: str) -> list[str]:
    """Words in lower case, without punctuation marks."""
    return _WORD.findall(text.casefold())


def rouge(answer: str, reference: str) -> dict[str, float]:
    """F1 of the words, of the pairs of neighbouring words, and of the longest common subsequence of words."""
    said, asked = words(answer), words(reference)
    return {
        "rouge1": _f1(_common(said, asked, 1), len(said), len(asked)),
        "rouge2": _f1(_common(said, asked, 2), len(said) - 1, len(asked) - 1),
        "rougeL": _f1(longest_common(said, asked), len(said), len(asked)),
    }


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; bits of one number stand for the places of `a`.

    Hyyrö 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    rest = full
    for word in b:
        found = rest & places.get(word, 0)
        rest = ((rest + found) | (rest - found)) & full
    return len(a) - rest.bit_count()


def _common(a: Sequence[str], b: Sequence[str], size: int) -> int:
    counts = [Counter(zip(*(words[i:] for i in range(size)), strict=False)) for words in (a, b)]
    return (counts[0] & counts[1]).total()


def _f1(common: int, num_said: int, num_asked: int) -> float:
    return 2 * common / (num_said + num_asked) if common else 0.0
