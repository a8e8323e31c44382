"""The rows: where they come from, and which columns hold what."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Name, Section


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
