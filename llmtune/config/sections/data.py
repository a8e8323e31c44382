"""The rows: where they come from, and which columns hold what."""

import codecs
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from llmtune.config.sections.base import Count, Name, Section


@dataclass(frozen=True)
class LayoutColumns:
    """What a way of writing conversations calls its columns."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


# The ways in which conversations are written; where a file has the columns of several, the first counts.
LAYOUTS = {
    "messages": LayoutColumns(("messages",), ("system",)),
    "sharegpt": LayoutColumns(("conversations",), ("system",)),
    "alpaca": LayoutColumns(("instruction", "output"), ("input", "system", "history")),
    "prompt_completion": LayoutColumns(("prompt", "completion"), ("system",)),
}
# The same with a better and a worse answer; implicit: two whole conversations that begin alike.
PREFERENCE_LAYOUTS = {
    "prompt_completion": LayoutColumns(("prompt", "chosen", "rejected"), ("system",)),
    "alpaca": LayoutColumns(("instruction", "chosen", "rejected"), ("input", "system", "history")),
    "sharegpt": LayoutColumns(("conversations", "chosen", "rejected"), ("system",)),
    "messages": LayoutColumns(("messages", "chosen", "rejected"), ("system",)),
    "implicit": LayoutColumns(("chosen", "rejected"), ("system",)),
}


class ColumnMapping(Section):
    """Which columns of the source hold what. Shared by every kind of data."""

    text_column: Name | None
    """Column with the text, or for task=tagging with lists of words; null for purely numeric rows."""
    text_pair_column: Name | None
    """Column with the second text of a pair."""
    label_column: Name | None
    """Column with the class name, the number to predict, or for multilabel and tagging lists of labels or tags."""
    label_columns: tuple[Name, ...]
    """For task=multilabel: columns of 0 and 1, one for each label, instead of data.label_column."""
    label_separator: Annotated[str, Field(min_length=1)] | None
    """For task=multilabel: what divides the labels where data.label_column holds text, such as '|' or ','."""
    feature_columns: tuple[Name, ...]
    """Numeric input columns, for model=mlp."""
    conversation: Literal["auto", "messages", "sharegpt", "alpaca", "prompt_completion", "implicit"]
    """For task=instruction and preference: how conversations are written; auto: as the names of the columns say."""
    conversation_columns: dict[str, str]
    """For task=instruction and preference: the file's names for columns, such as {instruction: question, output: answer}."""
    roles: dict[str, Literal["system", "user", "assistant"]]
    """For task=instruction and preference: who speaks under unknown names of roles, for example {bing: assistant}."""
    bad_conversations: Literal["refuse", "drop"]
    """For task=instruction and preference: whether rows without a proper answer are an error, or left out and counted."""
    where: dict[str, str]
    """Keep only rows whose column equals this value, for example {source: imdb}."""
    label_map: dict[str, str]
    """Other names for the labels of the file, for example {0: negative, 1: positive}."""
    max_rows: Count | None
    """Use at most this many rows of each split, drawn with the seed."""


def _known_encoding(name: str) -> str:
    try:
        is_text = name == "auto" or codecs.lookup(name)._is_text_encoding
    except LookupError:
        is_text = False
    if not is_text:
        raise ValueError(f"there is no encoding '{name}': such as utf-8, cp1252, gb18030, utf-16, or auto")
    return name


def _as_tab(value: Any) -> Any:
    return "\t" if value == "\\t" else value


Delimiter = Annotated[str, BeforeValidator(_as_tab), Field(min_length=1, max_length=1)]
FileNames = Annotated[tuple[Name, ...], Field(min_length=1)]


class FilesData(ColumnMapping):
    """Files on this machine, or inside an installed package (package:NAME/PATH)."""

    type: Literal["files"]
    train_file: Name | FileNames
    """File or files to train on: a path, or package:NAME/PATH. Gzip is understood. Or a folder of texts, see data.format."""
    validation_file: Name | FileNames | None
    """File or files to choose the best checkpoint on; null: split off from the train rows."""
    test_file: Name | FileNames | None
    """File or files for the final score; null: split off from the train rows."""
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "text", "conll", "folders"]
    """File format; auto goes by the name's ending; conll: a word a line; folders: DIR/LABEL/*.txt."""
    encoding: Annotated[Name, AfterValidator(_known_encoding)]
    """Encoding of text files, such as cp1252, gb18030 or utf-16; auto: UTF-8, else what the bytes look like."""
    delimiter: Delimiter | None
    """Character between CSV or TSV fields; null: comma for CSV, tab for TSV, another one where only that fits the header."""
    quoting: bool
    """Whether quotes enclose CSV or TSV fields; false: quotes are literal text."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] | None
    """Character that encloses CSV or TSV fields; null: the double quote, or a single one where only that fits the header."""
    column_names: tuple[Name, ...] | None
    """Names of the columns of a CSV, TSV or CoNLL file without a header line."""


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
