"""Synonyms from the files of a WordNet. Their format: https://wordnet.princeton.edu/documentation/wndb5wn"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from llmtune.errors import DataError

FILES = ("index.sense", "data.noun", "data.verb", "data.adj", "data.adv")

_POS_OF_NUMBER = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
# Penn Treebank's tags of the forms that are looked up by their lemma; forms such as 'meanest' would give 'hatefulest'.
_TAGS = {"NOUN": ("NNS",), "VERB": ("VBZ", "VBD", "VBG", "VBN")}
_LEAST_SHARE = 0.2  # of a word's uses: rarer meanings are left alone

# Words that have a meaning in WordNet (a: ampere, it: information technology) but are hardly ever used in it.
_FUNCTION_WORDS = """
a about above after again against all am an and any are as at be because been before being below between both but by can could
did do does doing down during each few for from further had has have having he her here hers him his how i if in into is it its
just me more most my no nor not now of off on once only or other our out over own same she should so some such than that the
their them then there these they this those through to too under until up us very was we were what when where which while who
whom why will with would you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


class _Sense(NamedTuple):
    """One meaning of a word, by the number of its synset; the most common one is the largest."""

    uses: int
    minus_rank: int
    pos: str
    synset: str


_NONE = _Sense(-1, 0, "", "")


class WordNet:
    """The synonyms of a word in its common meanings, in the form that the word has: of 'films' it is 'movies'.

    Args:
        folder: holds `FILES`.

    Raises:
        DataError: a file is missing or is no part of a WordNet.
    """

    cut = None

    def __init__(self, folder: Path):
        index, *data = (folder / name for name in FILES)
        self._senses: dict[str, list[_Sense]] = {}
        self._synsets: dict[tuple[str, str], list[str]] = {}
        try:
            self._read_index(index)
            for pos, path in zip(("noun", "verb", "adj", "adv"), data, strict=True):
                self._read_data(path, pos)
        except (OSError, ValueError, LookupError) as e:
            raise DataError(
                f"holds no WordNet: {e}",
                where=str(folder),
                remedy=f"name a folder with {', '.join(FILES)}, such as /usr/share/wordnet",
            ) from None
        self.of = lru_cache(1 << 16)(self._of)

    def _read_index(self, path: Path) -> None:
        """Lines 'lemma%pos:... synset rank uses'."""
        with path.open(encoding="ascii") as file:
            for line in file:
                lemma, _, rest = line.partition("%")
                if lemma.isalpha():
                    _, synset, rank, uses = rest.split()
                    sense = _Sense(int(uses), -int(rank), _POS_OF_NUMBER[rest[0]], synset)
                    self._senses.setdefault(lemma, []).append(sense)

    def _read_data(self, path: Path, pos: str) -> None:
        """Lines 'synset file type number word 0 word 0 ... | gloss', the number in hexadecimal.

        Words have blanks as '_'. Adjectives tell where they may stand: (a), (p), (ip).
        """
        with path.open(encoding="ascii") as file:
            for line in file:
                if line[0] == " ":  # the licence
                    continue
                fields = line.partition("|")[0].split(" ")
                words = [word.partition("(")[0] for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]]
                single = [word for word in words if word.isalpha() and word.islower()]
                if len(single) > 1:
                    self._synsets[pos, fields[0]] = single

    def _of(self, word: str) -> tuple[str, ...]:
        """Single words that mean the same as a lower-case word, in its own form."""
        if word in FUNCTION_WORDS:
            return ()
        own = self._senses.get(word, [])
        readings = [(own, word, None)]
        for pos, lemma, tag in _readings(word):
            if tag == "VBG" and own:
                continue  # 'boring' is an adjective, 'acting' a noun of its own
            readings.append(([sense for sense in self._senses.get(lemma, ()) if sense.pos == pos], lemma, tag))
        senses, lemma, tag = max(readings, key=lambda reading: max(reading[0], default=_NONE))
        synonyms = self._synonyms(lemma, senses) if senses else []
        return tuple(form for synonym in synonyms if (form := _inflected(synonym, tag)) != word)

    def _synonyms(self, lemma: str, senses: list[_Sense]) -> list[str]:
        """Of the most common meaning, and of others that make up a fair share of the word's uses; words in use alone."""
        least = max(1, _LEAST_SHARE * sum(sense.uses for sense in senses))
        found: dict[str, None] = {}
        for sense in sorted((sense for sense in senses if sense.uses >= least), reverse=True) or [max(senses)]:
            words = self._synsets.get((sense.pos, sense.synset), ())
            found |= dict.fromkeys(word for word in words if sense.uses == 0 or self._is_in_use(word, sense))
        return [word for word in found if word != lemma]

    def _is_in_use(self, word: str, sense: _Sense) -> bool:
        """Whether the texts that WordNet counted have the word in this meaning."""
        return any(own.uses for own in self._senses[word] if (own.pos, own.synset) == (sense.pos, sense.synset))


def _readings(word: str) -> Iterator[tuple[str, str, str]]:
    """The lemmas of which a word is a form: part of speech, lemma, and the form's tag."""
    import lemminflect

    for kind, lemmas in lemminflect.getAllLemmas(word).items():
        for lemma in lemmas:
            forms = lemminflect.getAllInflections(lemma) if lemma != word else {}
            tag = next((tag for tag in _TAGS.get(kind, ()) if word in forms.get(tag, ())), None)
            if tag is not None:
                yield kind.lower(), lemma, tag


@lru_cache(1 << 16)
def _inflected(word: str, tag: str | None) -> str:
    import lemminflect

    return word if tag is None else next(iter(lemminflect.getInflection(word, tag)), word)
