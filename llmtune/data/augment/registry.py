"""The table of augmenters, and several of them as one."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from llmtune.config.sections.augment import AugmentConfig
from llmtune.data.augment import noise, synonyms, thesaurus, words
from llmtune.errors import ResourceError

Texts = Mapping[str, str]  # text, and text_pair where there is one
Augmenter = Callable[[Texts, np.random.Generator], dict[str, str]]

AUGMENTERS: dict[str, Callable[..., str]] = {
    "drop": words.drop,
    "swap": words.swap,
    "synonyms": synonyms.replace,
    "insert": synonyms.insert,
    "characters": noise.characters,
    "keyboard": noise.keyboard,
    "homophones": noise.homophones,
    "casing": noise.casing,
    "punctuation": noise.punctuation,
}
_OF_ALL = {"type", "probability", "texts", "protect"}  # keys that _Step sees to
_COLUMNS = {"both": ("text", "text_pair"), "first": ("text",), "second": ("text_pair",)}


@dataclass(frozen=True)
class _Step:
    """One augmenter, for the texts of a row that it is meant for."""

    change: Callable[[str, np.random.Generator], str]
    probability: float
    columns: Sequence[str]

    def __call__(self, texts: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
        if rng.random() >= self.probability:
            return texts
        return texts | {name: self._changed(texts[name], rng) for name in self.columns if name in texts}

    def _changed(self, text: str, rng: np.random.Generator) -> str:
        changed = self.change(text, rng)
        return changed if changed.strip() else text


def build(augment: Mapping[str, AugmentConfig]) -> Augmenter | None:
    """All augmenters of texts as one, applied in written order; None if there are none.

    What it gives is a pure function of the texts and the generator's key. A text that is not blank never becomes so.

    Raises:
        ResourceError: a package is missing.
        DataError: a file of synonyms is missing or cannot be read.
    """
    require(augment)
    steps = [_step(config) for config in of_texts(augment).values()]
    return partial(_apply, steps) if steps else None


def of_texts(augment: Mapping[str, AugmentConfig]) -> dict[str, AugmentConfig]:
    """Those that change texts, not what the model makes of them."""
    return {name: config for name, config in augment.items() if config.type in AUGMENTERS}


def require(augment: Mapping[str, AugmentConfig]) -> None:
    """Stop if a package or a file is missing, or a file cannot be read. For its errors see `build`."""
    for name, config in of_texts(augment).items():
        for package in _packages(config):
            if find_spec(package) is None:
                message = f"augment.{name} needs the package {package}, which is not installed"
                raise ResourceError(message, remedy="pip install 'llmtune[augment]'")
        if config.type in ("synonyms", "insert"):
            thesaurus.load(config.dictionary, config.file)


def fingerprint(augment: Mapping[str, AugmentConfig]) -> str | None:
    """The dictionaries, segmenters and files that decide about the changed texts, with their versions or contents."""
    found = {}
    for config in of_texts(augment).values():
        found |= {package: version(package) for package in _packages(config)}
        if getattr(config, "file", None) is not None:
            found |= {file.name: _digest(file) for file in thesaurus.files(config.file)}
    return ", ".join(f"{name} {what}" for name, what in sorted(found.items())) or None


def _packages(config: AugmentConfig) -> tuple[str, ...]:
    """The optional packages that an augmenter works with."""
    match config.type:
        case "homophones":
            return ("pypinyin",)
        case "drop" | "swap":
            return ("rjieba",) if config.chinese == "words" else ()
        case "synonyms" | "insert":
            return thesaurus.packages(config.dictionary, config.file)
    return ()


def _step(config: AugmentConfig) -> _Step:
    patterns = tuple(re.compile(pattern) for pattern in config.protect)
    change = partial(AUGMENTERS[config.type], protect=patterns, **config.model_dump(exclude=_OF_ALL))
    return _Step(change, config.probability, _COLUMNS[config.texts])


def _apply(steps: Sequence[_Step], texts: Texts, rng: np.random.Generator) -> dict[str, str]:
    changed = dict(texts)
    for step in steps:
        changed = step(changed, rng)
    return changed


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
