"""Where the words of a text are: between spaces, or as a segmenter finds them in Chinese, which is written without any."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from llmtune.data.ideographs import CLASS as IDEOGRAPHS

Cutter = Callable[[str], list[str]]  # a run of ideographs -> its words, which joined are the run
Patterns = Sequence[re.Pattern[str]]
Span = tuple[int, int]

_IDEOGRAPH = re.compile(f"[{IDEOGRAPHS}]")
_PIECE = re.compile(rf"(\s*)([{IDEOGRAPHS}]|[^\s{IDEOGRAPHS}]+)")
_PIECE_OR_RUN = re.compile(rf"(\s*)([{IDEOGRAPHS}]+|[^\s{IDEOGRAPHS}]+)")
_LETTERS = rf"[^\W\d_{IDEOGRAPHS}]+"
_WORD = re.compile(rf"{_LETTERS}(?:['’-]{_LETTERS})*")
_WORD_OR_RUN = re.compile(rf"{_WORD.pattern}|[{IDEOGRAPHS}]+")


@lru_cache(1 << 16)
def is_ideograph(character: str) -> bool:
    """Of Chinese or Japanese, kana among them."""
    return _IDEOGRAPH.match(character) is not None


def pieces(text: str, *, chinese: str) -> list[tuple[str, str]]:
    """All of a text but the blanks at its end, as words behind their spaces; marks stay with their words.

    Args:
        text: in any script.
        chinese: what a word is where no spaces stand between them: 'characters' or 'words'.
    """
    if chinese == "characters":
        return _PIECE.findall(text)
    cut, found = chinese_words, []
    for space, run in _PIECE_OR_RUN.findall(text):
        first, *others = cut(run) if is_ideograph(run[0]) else [run]
        found += [(space, first), *(("", word) for word in others)]
    return found


def parted(text: str) -> str:
    """A text with a blank around each word in ideographs."""
    found = pieces(text, chinese="words")
    return "".join([(space or " " * bool(i)) + word for i, (space, word) in enumerate(found)])


def joined(spaces_and_words: Sequence[tuple[str, str]]) -> str:
    """The words behind their spaces; two that only an ideograph kept apart get a space between them."""
    text = ""
    for space, word in spaces_and_words:
        glued = text and not space and not is_ideograph(text[-1]) and not is_ideograph(word[0])
        text += (" " if glued else space) + word
    return text


def words(text: str, *, cut: Cutter | None) -> list[Span]:
    """Start and end of each word, without marks around it; of words in ideographs only if there is one who cuts them."""
    if cut is None:
        return [match.span() for match in _WORD.finditer(text)]
    spans = []
    for match in _WORD_OR_RUN.finditer(text):
        start, end = match.span()
        if not is_ideograph(text[start]):
            spans.append((start, end))
            continue
        for word in cut(match[0]):
            spans.append((start, start + len(word)))
            start += len(word)
    return spans


def chinese_words(run: str) -> list[str]:
    """The words of a run of ideographs, as jieba's dictionary and model find them."""
    import rjieba

    return rjieba.cut(run)


def covered(text: str, patterns: Patterns) -> bytearray:
    """A 1 for each character that a match of a pattern covers."""
    marks = bytearray(len(text))
    for pattern in patterns:
        for match in pattern.finditer(text):
            start, end = match.span()
            marks[start:end] = b"\1" * (end - start)
    return marks


def free(spans: Sequence[Span], text: str, patterns: Patterns) -> list[int]:
    """The indices of the spans that no match of a pattern overlaps."""
    if not patterns:
        return list(range(len(spans)))
    marks = covered(text, patterns)
    return [i for i, (start, end) in enumerate(spans) if marks.find(1, start, end) < 0]


def spans_of(spaces_and_words: Sequence[tuple[str, str]]) -> list[Span]:
    """Where in the text the words of `pieces` lie."""
    spans, end = [], 0
    for space, word in spaces_and_words:
        start = end + len(space)
        end = start + len(word)
        spans.append((start, end))
    return spans
