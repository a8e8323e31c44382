"""The rows: where they come from, how they are split, augmented and cut into tokens."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Name, Section


class ColumnMapping(Section):
    """Which columns of the source hold what. Shared by every kind of data."""

    text_column: Name | None
    """Column with the text; null for purely numeric rows."""
    text_pair_column: Name | None
    """Column with the second text of a pair."""
    label_column: Name | None
    """Column with the class name or, for regression, the number to predict."""
    feature_columns: tuple[Name, ...]
    """Numeric input columns, for model=mlp."""
    where: dict[str, str]
    """Keep only rows whose column equals this value, for example {source: imdb}."""
    label_map: dict[str, str]
    """Other names for the labels of the file, for example {0: negative, 1: positive}."""
    max_rows: Count | None
    """Use at most this many rows of each split, drawn with the seed."""


FileNames = Annotated[tuple[Name, ...], Field(min_length=1)]


class FilesData(ColumnMapping):
    """Files on this machine, or inside an installed package (package:NAME/PATH)."""

    type: Literal["files"]
    train_file: Name | FileNames
    """File or files to train on: a path, or package:NAME/PATH. Gzip is understood."""
    validation_file: Name | FileNames | None
    """File or files to choose the best checkpoint on; null: split off from the train rows."""
    test_file: Name | FileNames | None
    """File or files for the final score; null: split off from the train rows."""
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "text"]
    """File format; auto goes by the name's ending."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None
    """Character between CSV or TSV fields; null: comma for CSV, tab for TSV."""
    quoting: bool
    """Whether double quotes enclose CSV or TSV fields; false: quotes are literal text."""
    column_names: tuple[Name, ...] | None
    """Names of the columns of a CSV or TSV file without a header line."""


class HubData(ColumnMapping):
    """A data set of the Hugging Face hub, by name, or a directory that datasets.load_dataset reads."""

    type: Literal["hub"]
    name: Name
    """Name on the hub, such as stanfordnlp/sst2, or a local data set directory."""
    subset: Name | None
    """Configuration of the data set."""
    revision: Name | None
    """Branch, tag or commit."""
    train_split: Name
    """Name of the split to train on."""
    validation_split: Name | None
    """Name of the validation split; null: split off from the train rows."""
    test_split: Name | None
    """Name of the test split; null: split off from the train rows."""


DataConfig = Annotated[FilesData | HubData, Field(discriminator="type")]


class SplitSection(Section):
    """How rows are set aside when the data names no validation or test rows of its own."""

    validation_fraction: Fraction
    """Share of the rows set aside for validation if none are given."""
    test_fraction: Fraction
    """Share of the rows set aside for the test if none are given."""


class RandomSplit(SplitSection):
    """Drawn at random with the seed."""

    type: Literal["random"]


class StratifiedSplit(SplitSection):
    """Drawn at random with the seed, each class in the same proportion; without classes like random."""

    type: Literal["stratified"]


class ContiguousSplit(SplitSection):
    """The last rows in file order: running text, time series."""

    type: Literal["contiguous"]


SplitConfig = Annotated[RandomSplit | StratifiedSplit | ContiguousSplit, Field(discriminator="type")]


class DropWords(Section):
    """Leaves out words at random. Wei and Zou 2019 (EDA), random deletion."""

    type: Literal["drop"]
    rate: Fraction
    """Probability that a word is left out."""


class SwapWords(Section):
    """Exchanges words at random. Wei and Zou 2019 (EDA), random swap."""

    type: Literal["swap"]
    rate: Fraction
    """Number of exchanges as a share of the number of words."""


AugmentConfig = Annotated[DropWords | SwapWords, Field(discriminator="type")]


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
