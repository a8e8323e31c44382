"""The source rows: files or hub data in the columns that the rest of the house knows.

A table has, as far as they are configured, `text`, `text_pair` and `label` (strings, null where the source has nothing) and
`features` (lists of float64); `group` and `time` (strings) if a split goes by them; and for messages `file` and `row`: the
line on which the row starts, or the number of the row in formats without lines. What else a task asks for, such as `labels` or
`tags`, `forms.py` tells; conversations are read by `conversations.py`.
"""

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune import paths
from llmtune.config.sections.data import ColumnMapping, DataConfig, FilesData, HubData
from llmtune.data import forms
from llmtune.data.accounting import Ledger
from llmtune.data.conversations import Conversations
from llmtune.data.forms import Form
from llmtune.data.preferences import Preferences
from llmtune.data.readers import conll, delimited, folders, hub, json_rows, parquet, plain
from llmtune.data.readers.columns import Chunk, Reader, Source, Wanted, as_numbers, as_text, listed
from llmtune.data.readers.stream import check_file
from llmtune.data.spool import Spool
from llmtune.errors import DataError
from llmtune.failures import is_the_systems
from llmtune.randomness import generator

Also = Mapping[str, tuple[str, str]]  # more columns by their canonical name: that in the source, and the config key

_VALUES_TOLD = 10
SPLITS = ("train", "validation", "test")

READERS: dict[str, Reader] = {
    "csv": delimited.read,
    "tsv": delimited.read,
    "json": json_rows.read,
    "jsonl": json_rows.read_lines,
    "parquet": parquet.read,
    "text": plain.read,
    "conll": conll.read,
    "folders": folders.read,
}
CONVERSATIONS: dict[Form, Callable[[ColumnMapping], Conversations]] = {
    "messages": Conversations,
    "prompts": partial(Conversations, are_prompts=True),
    "preference": Preferences,
}
ENDINGS = {
    **{f".{name}": name for name in READERS if name not in ("text", "folders")},
    **{".ndjson": "jsonl", ".txt": "text", ".bio": "conll"},
}
# The formats that a key is for, and what else it is allowed to be in others.
_ONLY_FOR = {
    "delimiter": (("csv", "tsv"), (None,)),
    "quote": (("csv", "tsv"), (None,)),
    "column_names": (("csv", "tsv", "conll"), (None,)),
    "encoding": (tuple(name for name in READERS if name != "parquet"), ("utf-8", "auto")),
}


def load(
    data: DataConfig,
    *,
    need_label: bool = True,
    form: Form = "label",
    seed: int = 0,
    spool: Spool | None = None,
    also: Also | None = None,
    rename: Callable[[pa.Array], pa.Array] | None = None,
    ledger: Ledger | None = None,
) -> dict[str, pa.Table]:
    """The rows of every split that the data names, 'train' always; `where` and `max_rows` are applied.

    Args:
        data: what to read.
        need_label: whether a source without the label column is an error.
        form: what the rows hold, see `forms.OF_TASK`.
        seed: of the draw of `max_rows`.
        spool: makes the tables; None: they are held in memory.
        also: columns that the train rows have besides.
        rename: makes other labels of some rows' labels.
        ledger: is told how many rows there were, and how many are left.

    Raises:
        DataError: a source is missing, malformed or empty; with its place and the remedy.
    """
    wanted, spool = _wanted(data, need_label=need_label, form=form), spool or Spool()
    conversations = CONVERSATIONS[form](data) if form in CONVERSATIONS else None
    tables = {}
    for split in SPLITS:
        if is_named(data, split):
            more = dict(also or {}) if split == "train" else {}
            asked = replace(wanted, required={**dict(more.values()), **wanted.required})
            if conversations is not None:
                asked = replace(asked, choose=conversations.wanted)
            if isinstance(data, HubData):
                chunks = _hub_chunks(data, split, asked)
            else:
                chunks = _file_chunks(data, split, asked, scratch=spool.folder)
            counted = _Counted(chunks)
            table = _table(data, counted, spool, form=form, conversations=conversations, also=more, rename=rename)
            tables[split] = _limited(table, data.max_rows, seed=seed, split=split, spool=spool)
            dropped = conversations.all_dropped() if conversations is not None else {}
            if ledger is not None:
                counts = {"rows": counted.num_rows, "allowed": table.num_rows, "taken": tables[split].num_rows}
                ledger.enter_read(split, **counts, dropped=dropped)
    return tables


class _Counted:
    """Chunks of rows as they go by, and how many rows there were."""

    def __init__(self, chunks: Iterator[tuple[str, Chunk]]):
        self._chunks, self.num_rows = chunks, 0

    def __iter__(self) -> Iterator[tuple[str, Chunk]]:
        for name, chunk in self._chunks:
            self.num_rows += len(chunk.rows)
            yield name, chunk


def fingerprint(data: DataConfig) -> list[list]:
    """What tells whether the inputs have changed: name, size and sha256 of each file; a hub data set's name and revision.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    if isinstance(data, HubData):
        inner = sorted(path for path in Path(data.name).rglob("*") if path.is_file()) if Path(data.name).is_dir() else []
        return [[data.name, data.subset, data.revision], *(_file_fingerprint(path, str(path)) for path in inner)]
    files = dict.fromkeys(file for split in SPLITS for file in _files(data, split))
    return [folders.fingerprint(*file) if file[0].is_dir() else _file_fingerprint(*file) for file in files]


def files(data: DataConfig) -> list[Path]:
    """The source files of all splits; none if they come from the hub."""
    return [] if isinstance(data, HubData) else [path for split in SPLITS for path, _ in _files(data, split)]


def is_plain_text(data: DataConfig) -> bool:
    """Whether the rows are lines of plain text, which carry their own line ends."""
    return isinstance(data, FilesData) and all(_format(data, path, name)[0] == "text" for path, name in _files(data, "train"))


def _wanted(data: ColumnMapping, *, need_label: bool, form: Form) -> Wanted:
    allowed = {name: "data.where" for name in data.where}
    if form in CONVERSATIONS:
        return Wanted(allowed)
    required = {
        data.text_column: "data.text_column",
        data.text_pair_column: "data.text_pair_column",
        **{name: "data.feature_columns" for name in data.feature_columns},
        **allowed,
    }
    labels = {name: "data.label_columns" for name in data.label_columns} or {data.label_column: "data.label_column"}
    if need_label:
        required |= labels
    required.pop(None, None)
    optional = tuple(name for name in labels if name and not need_label)
    return Wanted(required, optional, forms.lists(form, data))


def is_named(data: DataConfig, split: str) -> bool:
    """Whether the data has rows of its own for a split."""
    return getattr(data, f"{split}_{'split' if isinstance(data, HubData) else 'file'}") is not None


def _files(data: FilesData, split: str) -> list[tuple[Path, str]]:
    """The files of a split with their names, all of them fit to be opened."""
    given = getattr(data, f"{split}_file") or ()
    files = []
    for name in (given,) if isinstance(given, str) else given:
        path = paths.resolve(name)
        if "*" in name and not path.exists():
            matches = sorted(glob.glob(str(path), recursive=True))
            if not matches:
                raise DataError(f"no file matches '{name}'", where=f"data.{split}_file")
            files += [(Path(match), match) for match in matches]
        else:
            files.append((path, name))
    seen = set()
    for path, name in files:
        if not _is_folder(data, path):
            check_file(path, name)
        if path in seen:
            raise DataError("the file is named twice", where=name, remedy=f"name it once in data.{split}_file")
        seen.add(path)
    return files


def _is_folder(data: FilesData, path: Path) -> bool:
    """Whether a path is a folder of texts."""
    try:
        return data.format in ("auto", "folders") and path.is_dir() and bool(folders.texts(path))
    except (OSError, ValueError):
        return False  # `check_file` says what is wrong


def _format(data: FilesData, path: Path, name: str) -> tuple[str, bool]:
    """The format of a file, and whether it is gzipped."""
    gzipped = name.lower().endswith(".gz")
    kind = "folders" if _is_folder(data, path) else data.format
    if kind == "auto":
        ending = Path(name.lower().removesuffix(".gz")).suffix
        if ending not in ENDINGS:
            raise DataError(
                f"the name ends in none of the known ways: {', '.join(ENDINGS)}, each also with .gz",
                where=name,
                remedy=f"set data.format to one of {', '.join(READERS)}",
            )
        kind = ENDINGS[ending]
    for key, (kinds, neutral) in _ONLY_FOR.items():
        if kind not in kinds and getattr(data, key) not in neutral:
            shown = "null" if neutral[0] is None else neutral[0]
            message = f"data.{key} is for {', '.join(kinds)}; this file is {kind}"
            raise DataError(message, where=name, remedy=f"set data.{key}={shown}")
    if data.delimiter and data.delimiter in f"{data.quote or chr(34)}\r\n":
        raise DataError("fields cannot be divided by a quote or a line end", where="data.delimiter")
    return kind, gzipped


def _file_fingerprint(path: Path, name: str) -> list:
    try:
        with path.open("rb") as file:
            return [name, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError as e:
        if is_the_systems(e):
            raise
        raise DataError(f"the file cannot be read: {e.strerror or e}", where=name) from None


def _file_chunks(data: FilesData, split: str, wanted: Wanted, *, scratch: Path | None) -> Iterator[tuple[str, Chunk]]:
    """What the files of a split hold, one after the other, each with its name."""
    for path, name in _files(data, split):
        kind, gzipped = _format(data, path, name)
        source = _source(data, kind, path, name, gzipped=gzipped, scratch=scratch)
        before, num_rows = path.stat(), 0
        for chunk in READERS[kind](source, wanted):
            num_rows += len(chunk.rows)
            yield name, chunk
        after = path.stat()
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
            raise DataError("the file changed while it was read", where=name, remedy="start again when it is complete")
        if num_rows == 0:
            has_header = kind in ("csv", "tsv") and data.column_names is None
            raise DataError("the file holds a header line but no rows" if has_header else "the file holds no rows", where=name)


def _source(data: FilesData, kind: str, path: Path, name: str, *, gzipped: bool, scratch: Path | None) -> Source:
    return Source(
        path,
        name,
        gzipped,
        encoding=data.encoding,
        delimiter=data.delimiter or ("\t" if kind == "tsv" else ","),
        quote=(data.quote or '"') if data.quoting else None,
        is_delimiter_told=data.delimiter is not None,
        is_quote_told=data.quote is not None,
        column_names=data.column_names,
        scratch=scratch,
    )


def _hub_chunks(data: HubData, split: str, wanted: Wanted) -> Iterator[tuple[str, Chunk]]:
    name = getattr(data, f"{split}_split")
    num_rows = 0
    for chunk in hub.read(data, name, wanted):
        num_rows += len(chunk.rows)
        yield f"{data.name}[{name}]", chunk
    if num_rows == 0:
        raise DataError("the split holds no rows", where=f"{data.name}[{name}]")


def _table(
    data: ColumnMapping,
    chunks: Iterator[tuple[str, Chunk]],
    spool: Spool,
    *,
    form: Form,
    conversations: Conversations | None,
    also: Also,
    rename: Callable[[pa.Array], pa.Array] | None,
) -> pa.Table:
    """The canonical table of all chunks, those rows only that `where` allows."""
    seen: dict[str, dict[str, None]] = {column: {} for column in data.where}
    name = ""

    def batches() -> Iterator[pa.RecordBatch]:
        nonlocal name
        for name, chunk in chunks:
            kept = _kept(data, name, chunk, seen)
            if kept is not None and conversations is not None:
                kept = conversations.read(name, kept)
            if kept is not None and len(kept.rows):
                yield _canonical(data, name, kept, form=form, also=also, rename=rename)

    table = spool.table(batches())
    if table is None and conversations is not None and (dropped := conversations.all_dropped()):
        told = ", ".join(f"{num:,} {reason}" for reason, num in dropped.items())
        raise DataError(f"no conversation is left: {told}", where=name, remedy="correct the rows, or name other columns")
    if table is None:
        wheres = ", ".join(f"{column}: {value}" for column, value in data.where.items())
        told = "; ".join(f"'{column}' holds {listed(values, limit=_VALUES_TOLD)}" for column, values in seen.items())
        raise DataError(f"data.where={{{wheres}}} leaves no rows of {name}", where="data.where", remedy=told)
    return table


def _kept(data: ColumnMapping, name: str, chunk: Chunk, seen: dict[str, dict[str, None]]) -> Chunk | None:
    """The rows that `where` allows, if there are any; `seen` gathers some of the values of its columns."""
    keep = np.ones(len(chunk.rows), dtype=bool)
    for column, value in data.where.items():
        texts = as_text(chunk.columns[column], column=column, name=name, rows=chunk.rows)
        keep &= pc.fill_null(pc.equal(texts, value), False).to_numpy(zero_copy_only=False)
        if len(seen[column]) < _VALUES_TOLD:
            seen[column] |= dict.fromkeys(pc.unique(texts).to_pylist())
    if keep.all():
        return chunk if len(keep) else None
    if not keep.any():
        return None
    return chunk.filter(keep)


def _canonical(
    data: ColumnMapping, name: str, chunk: Chunk, *, form: Form, also: Also, rename: Callable[[pa.Array], pa.Array] | None
) -> pa.RecordBatch:
    arrays = forms.annotations(form, data, name, chunk)
    columns = {"text": data.text_column, "text_pair": data.text_pair_column}
    columns |= {"label": data.label_column} if form == "label" else {}
    for target, column in {**columns, **{target: column for target, (column, _) in also.items()}}.items():
        if column in chunk.columns and target not in arrays:
            arrays[target] = as_text(chunk.columns[column], column=column, name=name, rows=chunk.rows)
    if rename is not None:
        for target in {"label", "labels", "tags"} & arrays.keys():
            arrays[target] = forms.renamed(arrays[target], rename)
    num_rows, width = len(chunk.rows), len(data.feature_columns)
    if width:
        numbers = [as_numbers(chunk.columns[c], column=c, name=name, rows=chunk.rows) for c in data.feature_columns]
        offsets = np.arange(num_rows + 1, dtype=np.int32) * width
        arrays["features"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.stack(numbers, axis=1).ravel()))
    one_file = pa.DictionaryArray.from_arrays(np.zeros(num_rows, dtype=np.int32), [name])
    arrays["file"] = one_file if chunk.files is None else chunk.files
    arrays["row"] = pa.array(chunk.rows, pa.int64())
    return pa.RecordBatch.from_pydict(arrays)


def _limited(table: pa.Table, max_rows: int | None, *, seed: int, split: str, spool: Spool) -> pa.Table:
    """At most `max_rows` rows, drawn with the seed, in their old order."""
    if max_rows is None or table.num_rows <= max_rows:
        return table
    keep = np.zeros(table.num_rows, dtype=bool)
    keep[generator(seed, f"max_rows/{split}").choice(table.num_rows, max_rows, replace=False)] = True
    return spool.filtered(table, keep)


def place(columns: Mapping[str, pa.Array | pa.ChunkedArray] | pa.Table, index: int) -> str:
    """`file:line` of a row, for messages."""
    return f"{columns['file'][index]}:{columns['row'][index]}"
