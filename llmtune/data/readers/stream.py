"""Bytes of a file as text, with everything that can be wrong with them told by byte and line."""

import codecs
import gzip
import io
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from llmtune.data.readers import encodings
from llmtune.errors import DataError
from llmtune.failures import is_the_systems
from llmtune.paths import nearest_first

MAX_FIELD = 10_000_000  # characters of a field or line: beyond it a quote or line end is missing
_BLOCK = 1 << 20


def check_file(path: Path, name: str) -> os.stat_result:
    """Make sure that a file can be read, without opening it: to open a FIFO would wait for a writer.

    Args:
        path: the file.
        name: the same as the user wrote it.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no file '{name}'", remedy=_similar(path)) from None
    except (OSError, ValueError) as e:
        raise DataError(f"'{name}' cannot be read: {getattr(e, 'strerror', None) or e}") from None
    if stat.S_ISDIR(found.st_mode):
        remedy = f"name the files in it, such as '{name.rstrip('/')}/*.csv'"
        raise DataError(f"'{name}' is a directory, not a file", remedy=remedy)
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"'{name}' is not a regular file but a pipe, socket or device", remedy="copy the rows to a file first")
    if found.st_size == 0:
        raise DataError("the file is empty", where=name)
    return found


@contextmanager
def open_bytes(path: Path, name: str, *, gzipped: bool) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked. What breaks while they are read becomes a DataError."""
    try:
        with path.open("rb") as plain:
            yield gzip.GzipFile(fileobj=plain) if gzipped else plain
    except EOFError:
        raise DataError("the gzip file is cut off", where=name, remedy="fetch or pack it again") from None
    except (gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"the gzip file is damaged: {e}", where=name, remedy="fetch or pack it again") from None
    except OSError as e:
        if is_the_systems(e):
            raise
        raise DataError(f"the file cannot be read: {e.strerror or e}", where=name) from None


def text_blocks(path: Path, name: str, *, gzipped: bool, encoding: str = "utf-8") -> Iterator[str]:
    """The text of a file in blocks, a byte order mark left out.

    Args:
        path: the file.
        name: the same as the user wrote it.
        gzipped: whether it has to be unpacked.
        encoding: a name that Python knows, or 'auto'.

    Raises:
        DataError: bytes that are no text in this encoding, or a NUL, with its byte and line.
    """
    if encoding == "auto":
        with open_bytes(path, name, gzipped=gzipped) as stream:
            encoding = encodings.found(stream, name)
    decoder = codecs.getincrementaldecoder(encoding)()
    num_bytes, line = 0, 1
    with open_bytes(path, name, gzipped=gzipped) as stream:
        while True:
            block = stream.read(_BLOCK)
            marked = encodings.by_mark(block) if num_bytes == 0 else None
            if marked and encodings.is_utf8(encoding):
                message = f"the file is {marked.upper()}, not UTF-8"
                raise DataError(message, where=name, remedy=f"set data.encoding={marked}, or data.encoding=auto")
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeError as e:
                raise _undecodable(e, block, encoding, name, first_byte=num_bytes - pending, line=line) from None
            if (at := text.find("\0")) >= 0:
                raise DataError(
                    f"there is a NUL character at byte {num_bytes - pending + len(text[:at].encode(encoding))}",
                    where=f"{name}:{line + text.count(chr(10), 0, at)}",
                    remedy="is this a text file, and data.encoding its encoding? If only the NULs are wrong: "
                    "tr -d '\\000' < old > new",
                )
            if num_bytes == 0:
                text = text.removeprefix("\ufeff")
            line += text.count("\n")
            num_bytes += len(block)
            if text:
                yield text
            if not block:
                return


def text_lines(path: Path, name: str, *, gzipped: bool, encoding: str = "utf-8") -> Iterator[list[str]]:
    """The lines of a file in batches, each with its own end: `\\n`, `\\r\\n` or `\\r`.

    Raises:
        DataError: see `text_blocks`; also a line that is longer than MAX_FIELD.
    """
    return lines_of(text_blocks(path, name, gzipped=gzipped, encoding=encoding), name)


def lines_of(blocks: Iterable[str], name: str, *, first_line: int = 1) -> Iterator[list[str]]:
    """The lines of text that comes in blocks, see `text_lines`.

    Args:
        blocks: none of them empty.
        name: of the file, for messages.
        first_line: of the file, with which the text begins.
    """
    rest, line = "", first_line
    for block in blocks:
        lines = io.StringIO(rest + block, newline="").readlines()
        rest = "" if lines[-1].endswith("\n") else lines.pop()  # "\r" may be half of "\r\n"
        if lines:
            _check_length(lines[0], f"{name}:{line}")  # the others are shorter than a block
            line += len(lines)
            yield lines
        _check_length(rest, f"{name}:{line}")
    if rest:
        yield [rest]


def _check_length(line: str, where: str) -> None:
    if len(line) > MAX_FIELD:
        raise DataError(
            f"the line is longer than {MAX_FIELD:,} characters",
            where=where,
            remedy="is this a text file with one row a line? Cut longer texts into rows",
        )


def _undecodable(e: UnicodeError, block: bytes, encoding: str, name: str, *, first_byte: int, line: int) -> DataError:
    if not isinstance(e, UnicodeDecodeError):  # UTF-16 and UTF-32 without a mark
        return DataError(f"the file is no {encoding}: {e}", where=name, remedy=f"set data.encoding={encoding}-le, or -be")
    line += e.object.count(b"\n", 0, e.start)
    remedy = "correct the file, or set data.encoding to that which it was written with"
    if encodings.is_utf8(encoding) and (likely := encodings.guessed(e.object[e.start :])):
        remedy = f"the file seems to be written in {likely}: data.encoding={likely} reads it so"
    return DataError(
        f"invalid {encoding.upper()} at byte {first_byte + e.start} of the file (0x{e.object[e.start]:02x})",
        where=f"{name}:{line}",
        remedy=remedy,
    )


def _similar(path: Path) -> str | None:
    try:
        there = [entry.name for entry in os.scandir(path.parent) if not entry.is_dir(follow_symlinks=False)]
    except (OSError, ValueError):
        return f"there is no folder '{path.parent}' either"
    return f"the folder holds {', '.join(nearest_first(path.name, there)[:5])}" if there else None
