"""How texts are cut into tokens."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Section


class TokenizerSection(Section):
    """What every tokenizer has."""

    max_length: Annotated[int, Field(ge=2, le=1_000_000)] | None
    """Tokens of one example, special tokens included; longer ones are cut. null: the model's own limit, at most 512."""


class TrainedTokenizer(TokenizerSection):
    """A tokenizer that is trained on the train rows."""

    vocab_size: Annotated[int, Field(ge=8, le=10_000_000)]
    """Largest number of entries, special tokens included."""
    min_frequency: Count
    """Entries rarer than this in the train rows become unknown."""
    lowercase: bool
    """Whether case and accents are folded away."""


class AutoTokenizer(TrainedTokenizer):
    """The model's own if it has one; else trained on the data: words for lstm, WordPiece for bert, BPE for gpt."""

    type: Literal["auto"]


class PretrainedTokenizer(TokenizerSection):
    """The model's own."""

    type: Literal["pretrained"]


class WordTokenizer(TrainedTokenizer):
    """Words and punctuation marks."""

    type: Literal["word"]
    chinese: Literal["characters", "words"]
    """What a word is in Chinese: each character, or what stands between blanks, as after clean=segment."""


class CharTokenizer(TrainedTokenizer):
    """Single characters."""

    type: Literal["char"]


class WordPieceTokenizer(TrainedTokenizer):
    """Sub-words as BERT uses them."""

    type: Literal["wordpiece"]


class BpeTokenizer(TrainedTokenizer):
    """Byte-level sub-words as GPT-2 uses them."""

    type: Literal["bpe"]


TokenizerConfig = Annotated[
    AutoTokenizer | PretrainedTokenizer | WordTokenizer | CharTokenizer | WordPieceTokenizer | BpeTokenizer,
    Field(discriminator="type"),
]
