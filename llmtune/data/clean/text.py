"""Functions of texts: of an Arrow array of strings, null stays null. Only rows that need it are touched one by one."""

import html as html_entities
import importlib.util
import re
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data import segments
from llmtune.data.ideographs import CLASS as IDEOGRAPHS
from llmtune.errors import ResourceError

# None of them looks beyond the next thing of its kind, so that the time grows with the length of a text.
_SCRIPT = re.compile(r"<(script|style)\b[^<>]*>(?:(?!<\1\b).)*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"<!--(?:(?!<!--).)*?-->|<![a-z][^<>]*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-z](?:[^<>\"']|\"[^<\"]*\"|'[^<']*')*>", re.IGNORECASE)
_PLAUSIBLE_TAG = r"<[A-Za-z/!]"
# Of RFC 3986; what ends a sentence or closes a bracket behind an address is none of it.
_URL = re.compile(
    r"(?<![a-z0-9])(?:https?://|ftp://|www\.)[a-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[a-z0-9\-_~/#@$&*+=%]",
    re.IGNORECASE | re.ASCII,
)
_PLAUSIBLE_URL = r"(?i)://|www\."
# Characters that Python's str.split takes for white space, apart from the blank.
_UNEVEN = r"^ | $|  |[\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_BLANK_LINES = re.compile(r"\n{3,}")
# Not the joiners U+200C and U+200D, which Persian, Indic scripts and emoji need.
_INVISIBLE = (
    (0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x200B, 0x200B), (0x200E, 0x200F),
    (0x202A, 0x202E), (0x2060, 0x2064), (0x2066, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB),
)  # fmt: skip
_INVISIBLE_CLASS = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in _INVISIBLE)
_WITHOUT_INVISIBLE = dict.fromkeys(code for first, last in _INVISIBLE for code in range(first, last + 1))


def unicode(texts: pa.Array, *, form: str) -> pa.Array:
    """Unicode normalization form NFC or NFKC."""
    return pc.utf8_normalize(texts, form)


def mojibake(texts: pa.Array) -> pa.Array:
    """Texts that were decoded in a wrong encoding, put right. Speer, ftfy: https://doi.org/10.5281/zenodo.2591652

    Raises:
        ResourceError: ftfy is not installed.
    """
    try:
        from ftfy import fix_encoding
    except ImportError:
        raise ResourceError("clean=mojibake needs the package ftfy", remedy="pip install 'llmtune[clean]'") from None
    return _changed(texts, pc.invert(pc.string_is_ascii(texts)), fix_encoding)


def segment(texts: pa.Array) -> pa.Array:
    """Chinese with a blank around each word, as jieba's dictionary and model find them.

    Raises:
        ResourceError: rjieba is not installed.
    """
    if importlib.util.find_spec("rjieba") is None:
        raise ResourceError("clean=segment needs the package rjieba", remedy="pip install 'llmtune[augment]'")
    return _changed(texts, pc.match_substring_regex(texts, f"[{IDEOGRAPHS}]"), segments.parted)


def html(texts: pa.Array, *, tags: bool, entities: bool) -> pa.Array:
    """Without tags, and with characters for entities: what is written as `&lt;b&gt;` was meant to be read as `<b>`."""
    if tags:
        texts = _changed(texts, pc.match_substring_regex(texts, _PLAUSIBLE_TAG), _without_tags)
    if entities:
        texts = _changed(texts, pc.match_substring(texts, "&"), html_entities.unescape)
    return texts


def urls(texts: pa.Array, *, replacement: str) -> pa.Array:
    """With something else in place of each web address."""
    return _changed(texts, pc.match_substring_regex(texts, _PLAUSIBLE_URL), partial(_URL.sub, lambda _: replacement))


def whitespace(texts: pa.Array, *, keep_lines: bool) -> pa.Array:
    """One blank for each run of white space, none at the ends; or the same for each line of a text."""
    return _changed(texts, pc.match_substring_regex(texts, _UNEVEN), _even_lines if keep_lines else _even)


def control(texts: pa.Array) -> pa.Array:
    """Without control characters other than tab, line feed and carriage return, and without what is never seen."""
    needs = pc.match_substring_regex(texts, f"[{_INVISIBLE_CLASS}]")
    return _changed(texts, needs, lambda text: text.translate(_WITHOUT_INVISIBLE))


def _changed(texts: pa.Array, needs: pa.BooleanArray, change: Callable[[str], str]) -> pa.Array:
    """The texts with those changed that need it."""
    needs = pc.fill_null(needs, False)
    changed = [change(text) for text in texts.filter(needs).to_pylist()]
    return pc.replace_with_mask(texts, needs, pa.array(changed, pa.string())) if changed else texts


def _without_tags(text: str) -> str:
    for pattern in (_COMMENT, _SCRIPT, _TAG):
        text = pattern.sub(" ", text)
    return text


def _even(text: str) -> str:
    return " ".join(text.split())


def _even_lines(text: str) -> str:
    return _BLANK_LINES.sub("\n\n", "\n".join(_even(line) for line in text.split("\n")))
