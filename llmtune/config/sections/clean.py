"""How texts are cleaned, and which rows are left out or flagged. Cleaners are applied in written order."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Section

Similarity = Annotated[float, Field(gt=0, le=1)]
ShingleSize = Annotated[int, Field(ge=1, le=100)]
Action = Literal["drop", "flag"]


class UnicodeForm(Section):
    """Writes each character in one way. Unicode Standard Annex 15."""

    type: Literal["unicode"]
    form: Literal["NFC", "NFKC"]
    """NFC joins letters and their accents; NFKC also makes plain ones of full-width letters, ligatures, superscripts."""


class Mojibake(Section):
    """Repairs texts that were decoded in a wrong encoding, with ftfy."""

    type: Literal["mojibake"]


class Html(Section):
    """Takes HTML out of the texts."""

    type: Literal["html"]
    tags: bool
    """Whether a blank takes the place of tags and comments; scripts and styles go with their content."""
    entities: bool
    """Whether entities such as &amp; become the characters that they stand for, after tags are gone."""


class Urls(Section):
    """Takes web addresses out of the texts."""

    type: Literal["urls"]
    replacement: str
    """What takes the place of an address; '' removes it."""


class Whitespace(Section):
    """One blank for each run of white space, none at the ends."""

    type: Literal["whitespace"]
    keep_lines: bool
    """Whether lines stay lines; at most one blank line between two."""


class ControlCharacters(Section):
    """Removes control characters except tabs and line ends, and invisible ones: zero-width blanks, soft hyphens, direction."""

    type: Literal["control"]


class Segment(Section):
    """Puts a blank around each Chinese word, with jieba; for tokenizer=word with tokenizer.chinese=words."""

    type: Literal["segment"]


class Length(Section):
    """Leaves out rows with a text that is too short or too long."""

    type: Literal["length"]
    unit: Literal["characters", "words"]
    """What is counted; a Chinese or Japanese character is a word."""
    min: Annotated[int, Field(ge=0, lt=2**31)] | None
    """The least that a text may have."""
    max: Count | None
    """The most that a text may have."""
    action: Action
    """Whether such rows are left out, or stay and are counted."""


class Duplicates(Section):
    """Leaves out rows whose texts an earlier row of the same given split has, too; the first one stays."""

    type: Literal["duplicates"]
    threshold: Similarity | None
    """Jaccard similarity of the sets of shingles from which on two texts are the same; null: equal to the character."""
    shingle_size: ShingleSize
    """Characters of a shingle: about 5 in alphabetic scripts, 3 in Chinese."""
    contradictions: Literal["first", "drop", "keep"]
    """Of duplicates with unlike labels: the first stays, all are dropped, or the first of each label is kept."""
    action: Action
    """Whether such rows are left out, or stay and are counted."""


class Leaks(Section):
    """Leaves out train rows whose texts a validation or test row has, too; those of a validation or test row stay."""

    type: Literal["leaks"]
    threshold: Similarity | None
    """Jaccard similarity of the sets of shingles from which on two texts are the same; null: equal to the character."""
    shingle_size: ShingleSize
    """Characters of a shingle: about 5 in alphabetic scripts, 3 in Chinese."""
    action: Action
    """Whether such rows are left out, or stay and are counted."""


class Mislabelled(Section):
    """Leaves out train rows whose label is likely wrong. Northcutt, Jiang and Chuang 2021, with a quick linear model."""

    type: Literal["mislabelled"]
    max_score: Annotated[float, Field(gt=0, lt=0.5)]
    """Half of one plus the probability of a row's own label minus that of the likeliest other: the less, the surer."""
    action: Action
    """Whether such rows are left out, or stay and are counted."""


TextCleaner = UnicodeForm | Mojibake | Html | Urls | Whitespace | ControlCharacters | Segment
CleanConfig = Annotated[TextCleaner | Length | Duplicates | Leaks | Mislabelled, Field(discriminator="type")]
