"""One pass over the texts of a split: lengths, scripts, and what is odd about them. N: rows."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune.data.spool import batches_of
from llmtune.inspection.findings import NUM_EXAMPLES, Example, Finding, examples
from llmtune.inspection.scripts import MIXED_LETTERS, NONE, SCRIPTS, Scripts

_ROWS, _BYTES = 10_000, 8 << 20  # that are looked at at once
_HTML = (
    r"(?i)</?(?:a|b|i|u|p|br|hr|em|li|ol|ul|td|th|tr|h[1-6]|div|img|pre|span|font|table|tbody|strong|script|style|code|body|html"
    r"|head|center|blockquote)(?:\s[^<>]*)?/?>|&(?:[a-z]{2,8}|#[0-9]{2,6}|#x[0-9a-f]{2,5});|<!--"
)
_URL = r"(?i)\b(?:https?://|www\.)[^\s]"
_ONLY_URLS = r"(?i)^\s*(?:(?:https?://|www\.)\S+\s*)+$"
_INVISIBLE = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}\x{ad}\x{200b}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2060}-\x{2064}\x{feff}]"
_WIDE = r"[\x{ff10}-\x{ff19}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{ff61}-\x{ff9f}\x{fb00}-\x{fb06}]"
# A leading byte of UTF-8 and what may follow it, as Latin-1 and Windows-1252 show them.
_LATER = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_WRONGLY_DECODED = re.compile(f"[\u00c2-\u00f4][{_LATER}]{{1,3}}")
_PLAUSIBLE_MOJIBAKE = r"[\x{c2}-\x{f4}][\x{80}-\x{bf}\x{152}-\x{192}\x{2c6}-\x{2dc}\x{2013}-\x{2122}]"
_FEWEST_WORDS, _LARGEST_SHARE = 4, 0.3  # of a text that repeats itself, and distinct ones among them
_SAME_CHARACTERS = 6  # in a text of nothing else
_MAIN_SHARE = 0.8  # of the rows, for a script from which others deviate
_FAR = 6.0  # robust standard deviations of the logarithm of the length
_SMALLEST_DEVIATION = 0.3


@dataclass(frozen=True)
class TextFacts:
    """What a pass over the texts of a split gives.

    Attributes:
        lengths_N: characters of each row, both texts of a pair together; int64.
        scripts: rows by script, the most frequent first; 'none' where a row has no letters.
        findings: what is odd, with examples.
    """

    lengths_N: np.ndarray
    scripts: dict[str, int]
    findings: list[Finding]


def look(split: str, table: pa.Table) -> TextFacts:
    """Look at all texts of a split."""
    names = [name for name in ("text", "text_pair") if name in table.column_names]
    rows_of: dict[str, list[np.ndarray]] = {kind: [] for kind in _ODDITIES}
    counts = dict.fromkeys(_ODDITIES, 0)
    lengths, scripts, teller, start = [], [], Scripts(), 0
    for batch in batches_of(table.select(names), rows=_ROWS, size=_BYTES):
        columns = [pc.fill_null(column, "") for column in batch.columns]
        lengths.append(sum(pc.utf8_length(column).to_numpy().astype(np.int64) for column in columns))
        scripts.append(teller.of(columns[0]))
        for kind, mask in _odd(columns):
            counts[kind] += int(mask.sum())
            if sum(map(len, rows_of[kind])) < NUM_EXAMPLES:
                rows_of[kind].append(start + np.flatnonzero(mask)[:NUM_EXAMPLES])
        start += batch.num_rows
    lengths_N, scripts_N = np.concatenate(lengths), np.concatenate(scripts)
    findings = [
        Finding(kind, split, counts[kind], table.num_rows, _examples(kind, table, np.concatenate(rows_of[kind])))
        for kind in _ODDITIES
        if counts[kind]
    ]
    shares = np.bincount(scripts_N, minlength=len(SCRIPTS))
    found = {SCRIPTS[i]: int(shares[i]) for i in np.argsort(-shares, kind="stable") if shares[i]}
    return TextFacts(lengths_N, found, [*findings, *_deviating(split, table, scripts_N), *_extreme(split, table, lengths_N)])


def _examples(kind: str, table: pa.Table, rows: np.ndarray) -> tuple[Example, ...]:
    finder = _PLAUSIBLE_MOJIBAKE if kind == "mojibake" else _FINDERS.get(kind, (None,))[0]
    return examples(table, rows, around=finder if isinstance(finder, str) else None)


def _odd(columns: list[pa.Array]) -> Iterator[tuple[str, np.ndarray]]:
    """The rows of a batch that are odd in some way: a mask for each kind."""
    plain = [pc.string_is_ascii(column).to_numpy(zero_copy_only=False) for column in columns]
    blank = np.logical_and.reduce([_matches(column, r"^\s*$") for column in columns])
    yield "blank", blank
    for kind, (finder, is_in_ascii) in _FINDERS.items():
        find = partial(_matches, pattern=finder) if isinstance(finder, str) else finder
        mask = np.zeros(len(blank), bool)
        for column, is_plain in zip(columns, plain, strict=True):
            if is_in_ascii:
                mask |= find(column)
            elif not is_plain.all():
                mask[~is_plain] |= find(column.filter(pa.array(~is_plain)))
        yield kind, mask & ~blank


def _matches(texts: pa.Array, pattern: str) -> np.ndarray:
    return pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)


def _mojibake(texts: pa.Array) -> np.ndarray:
    """Whether a piece that could be UTF-8 taken for another encoding becomes a character when it is read as UTF-8."""
    mask = _matches(texts, _PLAUSIBLE_MOJIBAKE)
    for row in np.flatnonzero(mask):
        mask[row] = any(_is_utf8(piece[0]) for piece in _WRONGLY_DECODED.finditer(texts[int(row)].as_py()))
    return mask


def _is_utf8(piece: str) -> bool:
    for end in range(2, len(piece) + 1):
        for encoding in ("latin-1", "cp1252"):
            try:
                piece[:end].encode(encoding).decode()
                return True
            except UnicodeError:
                continue
    return False


def _repeated(texts: pa.Array) -> np.ndarray:
    return np.fromiter(map(_repeats_itself, texts.to_pylist()), bool, len(texts))


def _repeats_itself(text: str) -> bool:
    words = text.split()
    if len(words) >= _FEWEST_WORDS:
        return len(set(words)) <= _LARGEST_SHARE * len(words) and len(set(words)) <= 2
    return len(words) == 1 and len(text.strip()) >= _SAME_CHARACTERS and len(set(text.strip())) == 1


def _not_nfc(texts: pa.Array) -> np.ndarray:
    return pc.not_equal(pc.utf8_normalize(texts, "NFC"), texts).to_numpy(zero_copy_only=False)


# How rows of each kind are found: a pattern of RE2, or a function; and whether a text of plain ASCII can be of the kind.
_FINDERS: dict[str, tuple[str | Callable[[pa.Array], np.ndarray], bool]] = {
    "replacement": ("\ufffd", False),
    "control": (_INVISIBLE, True),
    "mojibake": (_mojibake, False),
    "html": (_HTML, True),
    "only_urls": (_ONLY_URLS, True),
    "urls": (_URL, True),
    "unicode": (_not_nfc, False),
    "compatibility": (_WIDE, False),
    "whitespace": (r"^\s|\s$|\s\s|\t", True),
    "repeated": (_repeated, True),
    "mixed_letters": (MIXED_LETTERS, False),
}
_ODDITIES = ("blank", *_FINDERS)


def _deviating(split: str, table: pa.Table, scripts_N: np.ndarray) -> Iterator[Finding]:
    """Rows in another script than most are in."""
    shares = np.bincount(scripts_N[scripts_N != NONE], minlength=len(SCRIPTS))
    main = int(shares.argmax())
    if shares[main] < _MAIN_SHARE * shares.sum():
        return
    rows = np.flatnonzero((scripts_N != main) & (scripts_N != NONE))
    if len(rows):
        notes = [f"{SCRIPTS[scripts_N[row]]}, not {SCRIPTS[main]}" for row in rows[:NUM_EXAMPLES]]
        yield Finding("other_script", split, len(rows), table.num_rows, examples(table, rows, notes))


def _extreme(split: str, table: pa.Table, lengths_N: np.ndarray) -> Iterator[Finding]:
    """Rows whose length is far from the median, on a logarithmic scale."""
    logs = np.log(np.maximum(lengths_N[lengths_N > 0], 1))
    if not len(logs):
        return
    middle = float(np.median(logs))
    deviation = max(1.4826 * float(np.median(np.abs(logs - middle))), _SMALLEST_DEVIATION)
    shortest, longest = (int(np.exp(min(middle + sign * _FAR * deviation, 30))) for sign in (-1, 1))
    for kind, mask, bound, order in (
        ("short", (lengths_N > 0) & (lengths_N < shortest), shortest, 1),
        ("long", lengths_N > longest, longest, -1),
    ):
        rows = np.flatnonzero(mask)
        if len(rows):
            rows = rows[np.argsort(order * lengths_N[rows], kind="stable")]
            notes = [f"{lengths_N[row]:,} characters" for row in rows[:NUM_EXAMPLES]]
            yield Finding(kind, split, len(rows), table.num_rows, examples(table, rows, notes), {"bound": bound})
