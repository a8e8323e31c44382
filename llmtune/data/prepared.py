"""Prepared rows on disk: Arrow files under a hash of what they were made from, memory-mapped, written all or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from llmtune import console
from llmtune.errors import ResourceError
from llmtune.failures import os_error_in
from llmtune.files import sync

FORMAT = 1  # of an entry; part of its key, so that an older one is never looked at
META = "meta.json"
_ORDER = {"train": 0, "validation": 1, "test": 2}
_LEFTOVER_AFTER = 24 * 3600  # seconds after which a directory of a build that was killed is removed


class Split:
    """The stored rows of one split, read as they are needed. Cheap to open, and to send to another process.

    Raises:
        pyarrow.ArrowException, OSError: the file is missing or broken.

    Attributes:
        path: the file.
        names: the stored columns.
        num_rows: how many rows there are.
    """

    def __init__(self, path: Path, beside: Mapping[str, np.ndarray] | None = None):
        self.path, self._beside = path, dict(beside or {})
        file = pa.memory_map(str(path))
        self._buffer = file.read_buffer(file.size())
        reader = pa.ipc.open_file(self._buffer)
        self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self.names = reader.schema.names
        self.num_rows = sum(batch.num_rows for batch in self._batches)

    def __reduce__(self) -> tuple:
        return Split, (self.path, self._beside)

    def __len__(self) -> int:
        return self.num_rows

    def with_numbers(self, numbers: Mapping[str, np.ndarray]) -> "Split":
        """The same rows with a number more each, by name, from arrays [num_rows]; of these alone, `rows` and `row` tell."""
        return Split(self.path, numbers)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int32 [num_rows]; 1 where rows are no tokens."""
        if "input_ids" not in self.names:
            return np.ones(self.num_rows, dtype=np.int32)
        return self._columns["input_ids"].lengths(self.num_rows)

    def items(self, name: str) -> Iterator[np.ndarray]:
        """What the lists of a stored column hold, int32, in pieces that show the file itself."""
        for batch in self._batches:
            yield np.from_dlpack(batch.column(name).flatten())  # to_numpy would import pandas

    def numbers(self, name: str) -> np.ndarray:
        """A stored column of numbers, as an array [num_rows] in memory."""
        return np.concatenate([np.from_dlpack(batch.column(name)) for batch in self._batches])

    def row(self, index: int) -> dict[str, Any]:
        """One row: numbers, texts, and lists as arrays that show the file itself (read-only)."""
        return self.rows([index])[0]

    def rows(self, indices: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Several rows, in the order of `indices`; see `row`."""
        wanted = np.asarray(indices, dtype=np.int64)
        columns = [column.take(wanted) for column in self._columns.values()]
        columns += [numbers[wanted].tolist() for numbers in self._beside.values()]
        names = [*self.names, *self._beside]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]

    @cached_property
    def _columns(self) -> dict[str, "_Numbers | _Runs"]:
        columns = {}
        for name in self.names:
            arrays = [batch.column(name) for batch in self._batches if batch.num_rows]
            is_number = bool(arrays) and (pa.types.is_integer(arrays[0].type) or pa.types.is_floating(arrays[0].type))
            columns[name] = _Numbers(arrays, self._buffer) if is_number else _Runs(arrays, self._buffer)
        return columns


class _Mapped:
    """The file as one array of a type, and where in it each batch of a column begins; no row of it is held in memory.

    Args:
        arrays: one for each batch, none of them empty.
        buffer: the whole file, in which all of them lie.
    """

    def __init__(self, arrays: list[pa.Array], buffer: pa.Buffer):
        self._buffer = buffer
        self._first_rows = np.cumsum([0, *(len(array) for array in arrays)])[:-1]

    def _view(self, dtype: np.dtype) -> np.ndarray:
        return np.frombuffer(self._buffer, dtype, count=self._buffer.size // dtype.itemsize)

    def _origins(self, buffers: list[pa.Buffer | None], dtype: np.dtype) -> np.ndarray:
        """Index in the view of the first item of each batch."""
        addresses = [part.address if part is not None and part.size else self._buffer.address for part in buffers]
        return (np.array(addresses, dtype=np.int64) - self._buffer.address) // dtype.itemsize

    def _find(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The batch of each row, and its place there."""
        batches = np.searchsorted(self._first_rows, indices, side="right") - 1
        return batches, indices - self._first_rows[batches]


class _Numbers(_Mapped):
    """A column of numbers."""

    def __init__(self, arrays: list[pa.Array], buffer: pa.Buffer):
        super().__init__(arrays, buffer)
        dtype = np.dtype(arrays[0].type.to_pandas_dtype())
        self._values = self._view(dtype)
        self._starts = self._origins([array.buffers()[-1] for array in arrays], dtype)

    def take(self, indices: np.ndarray) -> list[Any]:
        batches, places = self._find(indices)
        return self._values[self._starts[batches] + places].tolist()


class _Runs(_Mapped):
    """A column of texts or lists: each value is a run of items in the file, whatever batch it was written with."""

    def __init__(self, arrays: list[pa.Array], buffer: pa.Buffer):
        super().__init__(arrays, buffer)
        self._is_text = bool(arrays) and pa.types.is_string(arrays[0].type)
        dtype = np.dtype(np.uint8 if self._is_text or not arrays else arrays[0].type.value_type.to_pandas_dtype())
        self._items, self._bytes = self._view(dtype), memoryview(buffer)
        self._item_starts = self._origins([array.buffers()[-1] for array in arrays], dtype)
        self._offsets = self._view(np.dtype(np.int32))
        self._offset_starts = self._origins([array.buffers()[1] for array in arrays], np.dtype(np.int32))

    def lengths(self, num_rows: int) -> np.ndarray:
        """Items of each row, int32."""
        found = np.empty(num_rows, dtype=np.int32)
        bounds = [*self._first_rows.tolist(), num_rows]
        for start, end, first in zip(bounds, bounds[1:], self._offset_starts.tolist(), strict=False):
            found[start:end] = np.diff(self._offsets[first : first + end - start + 1])
        return found

    def take(self, indices: np.ndarray) -> list[Any]:
        batches, places = self._find(indices)
        at, first = self._offset_starts[batches] + places, self._item_starts[batches]
        runs = zip((self._offsets[at] + first).tolist(), (self._offsets[at + 1] + first).tolist(), strict=True)
        if self._is_text:
            return [str(self._bytes[start:end], "utf-8") for start, end in runs]
        return [self._items[start:end] for start, end in runs]


@dataclass(frozen=True)
class Prepared:
    """An entry of the cache.

    Attributes:
        directory: where it lies; what the builder wrote besides the splits lies there, too.
        meta: the facts that the builder returned.
        splits: by name, 'train' first.
    """

    directory: Path
    meta: dict[str, Any]
    splits: dict[str, Split]


def open_or_build(key: dict[str, Any], build: Callable[[Path], dict[str, Any]], *, cache_dir: Path) -> Prepared:
    """The entry of the key; it is built if it is missing or damaged. Several processes may do so at the same time.

    Args:
        key: JSON-ready; everything that decides about the content.
        build: writes the splits (`write_split`) and whatever belongs to them into an empty directory, and returns the facts.
        cache_dir: holds all entries.

    Raises:
        ResourceError: the folder cannot be written, or the disk is full.
    """
    content = json.dumps({"format": FORMAT, "key": key}, sort_keys=True, allow_nan=False)
    directory = cache_dir / hashlib.sha256(content.encode()).hexdigest()[:32]
    try:
        if directory.exists():
            return _open(directory)
    except _DamagedError as e:
        console.notice(f"the prepared data in {directory} is damaged ({e}) and is prepared again")
    work = cache_dir / f".tmp-{directory.name}-{uuid.uuid4().hex}"
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(cache_dir)
        work.mkdir()
        facts = build(work)
        files = {str(path.relative_to(work)): path.stat().st_size for path in sorted(work.rglob("*")) if path.is_file()}
        meta = {"format": FORMAT, "files": files, "facts": facts, "key": key}
        (work / META).write_text(json.dumps(meta, indent=1, allow_nan=False), encoding="utf-8")
        _sync_tree(work)
        with _sole_publisher(cache_dir):
            _publish(work, directory)
    except Exception as e:
        if (refused := os_error_in(e)) is None:
            raise
        raise ResourceError(
            f"the prepared data cannot be written: {refused.strerror or refused}",
            where=str(refused.filename or cache_dir),
            remedy="free some space, or set the environment variable LLMTUNE_CACHE to another folder",
        ) from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _open(directory)


def find(name: str, *, cache_dir: Path) -> Prepared | None:
    """The entry whose directory has this name; None if it is gone or damaged."""
    try:
        return _open(cache_dir / name)
    except (_DamagedError, OSError):
        return None


def key_of(directory: Path) -> dict[str, Any]:
    """Everything that decided about the content of an entry."""
    return json.loads((directory / META).read_bytes())["key"]


def inputs_of(ready: Prepared) -> str:
    """What tells whether an entry was made from the same source files as another one."""
    inputs = key_of(ready.directory)["inputs"]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


def write_split(directory: Path, name: str, columns: Iterable[Mapping[str, pa.Array | list]]) -> None:
    """Write chunks of stored columns as `{name}.arrow`. Columns named `..._ids` hold lists of int32.

    Args:
        directory: that `build` of `open_or_build` was given.
        name: of the split.
        columns: chunks of rows, all with the same columns of numbers, texts or lists of numbers.
    """
    batches = _batches(columns)
    first = next(batches, None)
    schema = first.schema if first is not None else pa.schema([])
    with pa.OSFile(str(directory / f"{name}.arrow"), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        if first is not None:
            writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _batches(columns: Iterable[Mapping[str, pa.Array | list]]) -> Iterator[pa.RecordBatch]:
    types: dict[str, pa.DataType] = {}
    for chunk in columns:
        if not any(len(values) for values in chunk.values()):
            continue  # no rows, which would have no types
        arrays = {}
        for name, values in chunk.items():
            known = types.get(name) or (pa.list_(pa.int32()) if name.endswith("_ids") else None)
            arrays[name] = values if isinstance(values, pa.Array) else pa.array(values, known)
            assert not arrays[name].null_count, f"column {name} holds None"
            types[name] = arrays[name].type
        yield pa.RecordBatch.from_pydict(arrays)


class _DamagedError(Exception):
    """An entry is not what it was when it was written."""


def _open(directory: Path) -> Prepared:
    try:
        meta = json.loads((directory / META).read_bytes())
        if meta["format"] != FORMAT:
            raise _DamagedError(f"format {meta['format']}")
        for name, size in meta["files"].items():
            if (directory / name).stat().st_size != size:
                raise _DamagedError(f"{name} has another size")
        names = [name.removesuffix(".arrow") for name in meta["files"] if name.endswith(".arrow") and "/" not in name]
        names.sort(key=lambda name: (_ORDER.get(name, len(_ORDER)), name))
        return Prepared(directory, meta["facts"], {name: Split(directory / f"{name}.arrow") for name in names})
    except (FileNotFoundError, NotADirectoryError) as e:
        raise _DamagedError(f"{Path(e.filename or directory).name} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as e:
        raise _DamagedError(str(e).splitlines()[0] if str(e) else type(e).__name__) from None


def _publish(work: Path, directory: Path) -> None:
    """Give a finished entry its name. If another process was faster, its entry stays; a damaged one gives way."""
    while True:
        try:
            work.rename(directory)
        except OSError as e:
            if e.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            sync(directory.parent)
            return
        try:
            _open(directory)
            return
        except _DamagedError:
            trash = directory.with_name(f".trash-{uuid.uuid4().hex}")
            try:
                directory.rename(trash)
            except FileNotFoundError:
                continue  # another process has moved it away
            shutil.rmtree(trash, ignore_errors=True)


@contextlib.contextmanager
def _sole_publisher(cache_dir: Path) -> Iterator[None]:
    """Nobody else gives names: what one process finds damaged, another may just have put in order."""
    folder = os.open(cache_dir, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every network file system has locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _remove_leftovers(cache_dir: Path) -> None:
    for entry in [*cache_dir.glob(".tmp-*"), *cache_dir.glob(".trash-*")]:
        try:
            newest = max(path.stat().st_mtime for path in [entry, *entry.rglob("*")])
        except FileNotFoundError:
            continue  # another process is at work on it
        if time.time() - newest > _LEFTOVER_AFTER:
            shutil.rmtree(entry, ignore_errors=True)


def _sync_tree(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        sync(path)
