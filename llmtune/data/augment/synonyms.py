"""Replace words by synonyms, or put synonyms between words. Wei and Zou 2019, EDA: https://aclanthology.org/D19-1670"""

import numpy as np

from llmtune.data.augment import thesaurus
from llmtune.data.segments import Patterns, Span, covered, free, is_ideograph, words

Edit = tuple[int, int, str]  # start and end of what is replaced, and what comes there


def replace(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, dictionary: str, file: str | None) -> str:
    """The text with words replaced: a share `rate` of their number, at least one, as far as they have synonyms.

    A word keeps its capitals.
    """
    known = thesaurus.load(dictionary, file)
    spans = words(text, cut=known.cut)
    found = _with_synonyms(text, spans, rng, rate=rate, protect=protect, known=known)
    return _edited(text, [(*span, synonym) for span, synonym in found])


def insert(text: str, rng: np.random.Generator, *, rate: float, protect: Patterns, dictionary: str, file: str | None) -> str:
    """The text with synonyms of its words at random places: a share `rate` of the number of words, at least one."""
    known = thesaurus.load(dictionary, file)
    spans = words(text, cut=known.cut)
    found = _with_synonyms(text, spans, rng, rate=rate, protect=protect, known=known)
    marks = covered(text, protect)
    places = [start for start, _ in spans if not (start and marks[start - 1] and marks[start])]  # in no protected phrase
    edits = []
    for _, synonym in found:
        at = places[rng.integers(len(places))]
        edits.append((at, at, synonym if is_ideograph(synonym[0]) else f"{synonym} "))
    return _edited(text, edits)


def _with_synonyms(
    text: str, spans: list[Span], rng: np.random.Generator, *, rate: float, protect: Patterns, known: thesaurus.Thesaurus
) -> list[tuple[Span, str]]:
    """Words drawn at random, each with one of its synonyms."""
    if not spans or rate == 0:
        return []
    wanted = max(1, round(rate * len(spans)))
    candidates = free(spans, text, protect)
    found: list[tuple[Span, str]] = []
    for i in rng.permutation(len(candidates)).tolist():
        start, end = spans[candidates[i]]
        word = text[start:end]
        if synonyms := known.of(word.lower()):
            found.append((spans[candidates[i]], _capitals_of(word, synonyms[rng.integers(len(synonyms))])))
            if len(found) == wanted:
                break
    return found


def _capitals_of(word: str, synonym: str) -> str:
    if word.isupper() and len(word) > 1:
        return synonym.upper()
    return synonym[:1].upper() + synonym[1:] if word[:1].isupper() else synonym


def _edited(text: str, edits: list[Edit]) -> str:
    parts, end = [], 0
    for start, stop, new in sorted(edits, key=lambda edit: edit[:2]):
        parts += [text[end:start], new]
        end = stop
    return "".join([*parts, text[end:]])
