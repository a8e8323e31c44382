"""Folders of texts: the folder of a text is its label, as in `train/pos/1.txt`."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from llmtune import console
from llmtune.data.readers.columns import Chunk, Source, Wanted
from llmtune.data.readers.stream import check_file, text_blocks

COLUMNS = ("text", "label")
ENDING = ".txt"
_CHUNK_FILES = 1_000


def read(source: Source, wanted: Wanted) -> Iterator[Chunk]:
    """Each text file as a row, by label and name, with the columns 'text' and 'label'.

    Raises:
        DataError: a file is empty, or no text.
    """
    found = wanted.among(COLUMNS, where=source.name, hint=": folders of texts have these two columns")
    files = texts(source.path)
    others = sum(1 for folder in {file.parent for file in files} for entry in folder.iterdir() if entry.suffix != ENDING)
    if others:
        console.notice(f"{source.name}: {others:,} entries beside the texts do not end in {ENDING} and are left out")
    for start in range(0, len(files), _CHUNK_FILES):
        part = files[start : start + _CHUNK_FILES]
        names = [_name(file, source) for file in part]
        arrays = {"text": _contents(part, names, source.encoding), "label": pa.array([file.parent.name for file in part])}
        chunk = {column: arrays[column] for column in found}
        yield Chunk(chunk, np.ones(len(part), dtype=np.int64), pa.array(names).dictionary_encode())


def texts(directory: Path) -> list[Path]:
    """The text files of a folder, which is a label then, or else of the folders in it; in order of their names."""
    own = _of(directory)
    return own or [file for folder in sorted(directory.iterdir()) if _is_label(folder) for file in _of(folder)]


def fingerprint(directory: Path, name: str) -> list:
    """Name, number of bytes and sha256 over all texts with their names."""
    digest, size = hashlib.sha256(), 0
    for file in texts(directory):
        content = file.read_bytes()
        size += len(content)
        digest.update(f"{file.relative_to(directory)}\0{len(content)}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return [name, size, digest.hexdigest()]


def _of(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix == ENDING and not entry.name.startswith("."))


def _is_label(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def _name(file: Path, source: Source) -> str:
    return f"{source.name.rstrip('/')}/{file.relative_to(source.path)}"


def _contents(files: list[Path], names: list[str], encoding: str) -> pa.Array:
    contents = []
    for file, name in zip(files, names, strict=True):
        check_file(file, name)
        contents.append("".join(text_blocks(file, name, gzipped=False, encoding=encoding)).rstrip("\r\n"))
    return pa.array(contents, pa.string())
