"""What an augmenter changed, piece by piece."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from llmtune.data.segments import pieces

Marked = list[tuple[str, bool]]  # a piece, and whether the other side lacks it there

_MARKS = re.compile(r"\w+|[^\w]")


def pieces_of(text: str) -> list[str]:
    """A text in words, blanks and marks, each ideograph by itself; joined they are the text."""
    found = [part for space, word in pieces(text, chinese="characters") for part in (space, *_MARKS.findall(word)) if part]
    return [*found, text[sum(map(len, found)) :]]


def compare(before: Sequence[str], after: Sequence[str]) -> tuple[Marked, Marked]:
    """Both sides with the pieces marked that differ; pieces may be words of a text as well as tokens of a tokenizer."""
    left: Marked = []
    right: Marked = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        left += [(piece, kind != "equal") for piece in before[a:b]]
        right += [(piece, kind != "equal") for piece in after[c:d]]
    return left, right
