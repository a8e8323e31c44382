"""Leave out or exchange words. Wei and Zou 2019, EDA: https://aclanthology.org/D19-1670

Words are what stands between spaces; in Chinese and Japanese, which are written without them, each character.
"""

import re

import numpy as np

_IDEOGRAPHS = "\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_WORD = re.compile(rf"(\s*)([{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+)")


def drop(text: str, rng: np.random.Generator, *, rate: float) -> str:
    """The text without the words that chance leaves out, each with probability `rate`; one always stays."""
    words = _WORD.findall(text)
    if len(words) < 2:
        return text
    kept = rng.random(len(words)) >= rate
    if not kept.any():
        kept[rng.integers(len(words))] = True
    return _joined([pair for pair, keep in zip(words, kept, strict=True) if keep]).lstrip()


def swap(text: str, rng: np.random.Generator, *, rate: float) -> str:
    """The text with pairs of words exchanged: a share `rate` of the number of words, at least one; the spaces stay."""
    spaces_and_words = _WORD.findall(text)
    if len(spaces_and_words) < 2 or rate == 0:
        return text
    words = [word for _, word in spaces_and_words]
    for _ in range(max(1, round(rate * len(words)))):
        i, j = rng.integers(len(words)), rng.integers(len(words) - 1)
        j += j >= i
        words[i], words[j] = words[j], words[i]
    return _joined([(space, word) for (space, _), word in zip(spaces_and_words, words, strict=True)])


def _joined(spaces_and_words: list[tuple[str, str]]) -> str:
    """The words behind their spaces; two that only an ideograph kept apart get a space between them."""
    text = ""
    for space, word in spaces_and_words:
        glued = text and not space and not _IDEOGRAPH.match(text[-1]) and not _IDEOGRAPH.match(word)
        text += (" " if glued else space) + word
    return text
