"""Slips of hand and eye: letters, neighbouring keys, characters that sound alike, capitals and marks."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from llmtune.data.ideographs import CLASS as IDEOGRAPHS
from llmtune.data.segments import Patterns, covered, is_ideograph

_LATIN_MARKS, _CHINESE_MARKS = ".,;:!?", "。，；：！？"
_NO_LETTERS = re.compile(r"[\W\d_]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_MARK = rf"[{_CHINESE_MARKS}、]|[{re.escape(_LATIN_MARKS)}](?![^\W_])"  # none within a number or a name such as 3.5
_MARK_OR_WORD = re.compile(rf"(?P<mark>{_MARK})|[{IDEOGRAPHS}]|(?:(?!{_MARK})[^\s{IDEOGRAPHS}])+")
_ROWS = {
    "qwerty": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "qwertz": ("qwertzuiop", "asdfghjkl", "yxcvbnm"),
    "azerty": ("azertyuiop", "qsdfghjklm", "wxcvbn"),
}
_SHIFTS = (0.0, 0.25, 0.75)  # of the rows to the right, in keys


def characters(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, operations: Sequence[str]) -> str:
    """The text with slips at its letters, each with probability `rate`; new letters are taken from the text itself."""
    is_protected = covered(text, protect)
    chosen = [i for i in _drawn(rng, rate, is_protected) if text[i].isalpha()]
    if not chosen:
        return text
    letters = _NO_LETTERS.sub("", text) or text
    kinds = rng.integers(len(operations), size=len(chosen)).tolist()
    others = rng.integers(len(letters), size=len(chosen)).tolist()
    changed = list(text)
    for i, kind, other in zip(chosen, kinds, others, strict=True):
        match operations[kind]:
            case "insert":
                changed[i] += letters[other]
            case "delete":
                changed[i] = ""
            case "substitute":
                changed[i] = letters[other]
            case "transpose":
                j = i + 1 if text[i + 1 : i + 2].isalpha() else i - 1
                if j >= 0 and text[j].isalpha() and not is_protected[j]:
                    changed[i], changed[j] = changed[j], changed[i]
    return "".join(changed)


def keyboard(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, layout: str) -> str:
    """The text with Latin letters replaced by those of neighbouring keys, each with probability `rate`."""
    return _replaced(text, rng, neighbours(layout), rate=rate, protect=protect)


def homophones(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns) -> str:
    """The text with Chinese characters replaced by others of the same pinyin, tones aside, each with probability `rate`."""
    return _replaced(text, rng, sounding_alike(), rate=rate, protect=protect)


def casing(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, styles: Sequence[str]) -> str:
    """The text with words in another case, each with probability `rate`."""
    words = [match.span() for match in _LETTERS.finditer(text)]
    marks = covered(text, protect)
    parts, end = [], 0
    for i in np.flatnonzero(rng.random(len(words)) < rate).tolist():
        start, stop = words[i]
        word = text[start:stop]
        styled = [new for style in styles if (new := getattr(word, style)()) != word]
        if styled and marks.find(1, start, stop) < 0:
            parts += [text[end:start], styled[rng.integers(len(styled))]]
            end = stop
    return "".join([*parts, text[end:]])


def punctuation(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, operations: Sequence[str]) -> str:
    """The text with marks put in, left out or replaced: at each word and each mark with probability `rate`."""
    places = list(_MARK_OR_WORD.finditer(text))
    at_marks = [operation for operation in operations if operation != "insert"]
    marks = covered(text, protect)
    parts, end = [], 0
    for i in np.flatnonzero(rng.random(len(places)) < rate).tolist():
        start, stop = places[i].span()
        is_mark = places[i]["mark"] is not None
        if marks.find(1, start, stop) >= 0 or not (at_marks if is_mark else "insert" in operations):
            continue
        is_before_mark = i + 1 < len(places) and places[i + 1]["mark"] is not None and places[i + 1].start() == stop
        if not is_mark and is_before_mark:
            continue
        is_chinese = text[start] in f"{_CHINESE_MARKS}、" or is_ideograph(text[stop - 1])
        known = _CHINESE_MARKS if is_chinese else _LATIN_MARKS
        new = known[rng.integers(len(known))]
        if is_mark:
            others = [mark for mark in known if mark != text[start]]
            new = "" if at_marks[rng.integers(len(at_marks))] == "delete" else others[rng.integers(len(others))]
        parts += [text[end : start if is_mark else stop], new]
        end = stop
    return "".join([*parts, text[end:]])


@cache
def neighbours(layout: str) -> Mapping[str, str]:
    """letter -> the letters of the keys that touch its key, small ones and capitals."""
    rows = zip(_ROWS[layout], _SHIFTS, strict=True)
    place = {key: (x + shift, y) for y, (row, shift) in enumerate(rows) for x, key in enumerate(row)}
    near = {
        key: "".join(k for k, (u, v) in place.items() if k != key and abs(u - x) <= 1 and abs(v - y) <= 1)
        for key, (x, y) in place.items()
    }
    return near | {key.upper(): keys.upper() for key, keys in near.items()}


@cache
def sounding_alike() -> Mapping[str, str]:
    """character -> the others of the same pinyin among the most common ones: level 1 of GB 2312, or of Big5 for its own."""
    from pypinyin import lazy_pinyin

    simplified = _decoded("gb2312", range(0xB0, 0xD8))
    traditional = [char for char in _decoded("big5", range(0xA4, 0xC7)) if is_ideograph(char)]
    alike: dict[str, str] = {}
    for known in (traditional, simplified):  # the second wins where both have a character
        by_sound: dict[str, list[str]] = {}
        for char in known:
            by_sound.setdefault(lazy_pinyin(char)[0], []).append(char)
        for chars in by_sound.values():
            alike |= {char: "".join(other for other in chars if other != char) for char in chars}
    return {char: others for char, others in alike.items() if others}


def _decoded(encoding: str, first_bytes: range) -> str:
    pairs = bytes(byte for first in first_bytes for second in range(0xA1, 0xFF) for byte in (first, second))
    return pairs.decode(encoding, "ignore")


def _drawn(rng: np.random.Generator, rate: float, is_protected: bytearray) -> list[int]:
    """Places in a text, each drawn with probability `rate` unless it is protected."""
    drawn = np.flatnonzero(rng.random(len(is_protected)) < rate).tolist()
    return [i for i in drawn if not is_protected[i]]


def _replaced(text: str, rng: np.random.Generator, others: Mapping[str, str], *, rate: float, protect: Patterns) -> str:
    chosen = [i for i in _drawn(rng, rate, covered(text, protect)) if text[i] in others]
    if not chosen:
        return text
    changed = list(text)
    for i, draw in zip(chosen, rng.random(len(chosen)).tolist(), strict=True):
        known = others[text[i]]
        changed[i] = known[int(draw * len(known))]
    return "".join(changed)
