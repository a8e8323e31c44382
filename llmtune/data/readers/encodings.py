"""Which encoding a file of text was written in, where nobody says so."""

import codecs
from typing import BinaryIO

from llmtune import console

# Those in wide use; of two that read the same text, the first.
LIKELY = (
    "cp1252", "gb18030", "cp932", "big5", "cp949", "euc_jp", "cp1251", "koi8_r", "cp1250", "cp1253", "cp1254", "cp1255",
    "cp1256", "cp1257", "cp1258", "cp874", "mac_roman",
)  # fmt: skip
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BLOCK = 1 << 20
_SAMPLE = 1 << 16  # bytes that are looked at
_BEFORE = 200  # of them before the first that is no UTF-8


def is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def by_mark(start: bytes) -> str | None:
    """What a byte order mark says, but for that of UTF-8."""
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), None)


def found(stream: BinaryIO, name: str) -> str:
    """UTF-8 if the whole file is; else what the bytes around the first that are not look like, which is told.

    Args:
        stream: the bytes of the file; it is read up to those.
        name: of the file, for the notice.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_first, before = True, b""
    while True:
        block = stream.read(_BLOCK)
        marked = by_mark(block) if is_first else None
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as e:
            sample = e.object[max(0, e.start - _BEFORE) :] if e.start >= _BEFORE else before[-_BEFORE:] + e.object
            encoding = marked or guessed(sample + stream.read(_SAMPLE))
            if encoding is None:
                return "utf-8"  # which complains of the byte
            console.notice(f"{name} is read as {encoding}, by the look of its bytes: data.encoding={encoding} says so")
            return encoding
        if not block:
            return "utf-8"
        is_first, before = False, block


def guessed(sample: bytes) -> str | None:
    """The likeliest of the encodings in wide use; None if the sample is text in none of them."""
    from charset_normalizer import from_bytes  # takes a while

    best = from_bytes(sample[:_SAMPLE], cp_isolation=list(LIKELY)).best()
    if best is None:
        return None
    alike = {best.encoding, *best.could_be_from_charset}
    return next(name for name in LIKELY if name in alike)
