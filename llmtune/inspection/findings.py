"""What an inspection can find, and the remedy for each: the table of kinds reads like a table of contents."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NUM_EXAMPLES = 5
_SHOWN = 240  # characters of an example's text
_BEFORE = 60  # of them before what it is an example of


class Kind(NamedTuple):
    """One row of the table of kinds.

    Attributes:
        title: what the rows are.
        weight: 'fix' (training suffers), 'look' (a human has to decide), or 'note' (a fact).
        overrides: that deal with it, with {names} for what the finding knows; empty where none can.
        advice: what they do, or what to do instead.
    """

    title: str
    weight: Literal["fix", "look", "note"]
    overrides: tuple[str, ...] = ()
    advice: str = ""


KINDS: dict[str, Kind] = {
    # texts
    "blank": Kind("blank texts", "fix", ("clean=[length]", "clean.length.unit=words"), "leaves such rows out"),
    "replacement": Kind("U+FFFD: characters were lost", "look", (), "decode the source again in its own encoding"),
    "control": Kind("control and invisible characters", "fix", ("clean=[control]",), "removes them"),
    "mojibake": Kind("mojibake: decoded in a wrong encoding", "fix", ("clean=[mojibake]",), "puts it right"),
    "html": Kind("HTML tags or entities", "fix", ("clean=[html]",), "takes them out"),
    "only_urls": Kind(
        "nothing but web addresses",
        "fix",
        ("clean=[urls,length]", "clean.length.unit=words"),
        "leaves such rows out",
    ),
    "urls": Kind("web addresses in the text", "note", ("clean=[urls]",), "takes them out"),
    "unicode": Kind("characters written in two ways (not NFC)", "fix", ("clean=[unicode]",), "writes each in one way"),
    "compatibility": Kind(
        "full-width letters, ligatures",
        "fix",
        ("clean=[unicode]", "clean.unicode.form=NFKC"),
        "makes plain ones of them",
    ),
    "whitespace": Kind(
        "uneven white space",
        "note",
        ("clean=[whitespace]", "clean.whitespace.keep_lines=true"),
        "makes it one blank each",
    ),
    "repeated": Kind("hardly anything but one word again and again", "look", (), "see whether such rows say anything"),
    "mixed_letters": Kind("words with letters of two scripts", "look", (), "look-alikes, such as a Cyrillic а, hide words"),
    "other_script": Kind("another script than the other rows", "look", (), "see whether they belong there"),
    # lengths
    "short": Kind("far shorter than the rest", "look", ("clean=[length]", "clean.length.min={bound}"), "leaves them out"),
    "long": Kind("far longer than the rest", "look", ("clean=[length]", "clean.length.max={bound}"), "leaves them out"),
    "cut": Kind("cut at tokenizer.max_length", "fix", ("tokenizer.max_length={length}",), "keeps 99 rows of 100 whole"),
    "cut_by_model": Kind("cut at tokenizer.max_length", "look", (), "the model reads no more: split them, or take another one"),
    "unknown": Kind("more than a tenth of the tokens unknown", "fix", ("tokenizer=wordpiece",), "spells rare words"),
    # labels
    "no_label_column": Kind("there is no column '{column}'", "fix", (), "name the column of the labels: data.label_column=..."),
    "no_label": Kind("no label", "fix", (), "add it, or remove the rows: training refuses them"),
    "alike_labels": Kind(
        "labels that differ in case or blanks", "fix", ("data.label_map={label_map}",), "makes them one class each"
    ),
    "alike_labels_by_hand": Kind(
        "labels that differ in case or blanks", "fix", (), "map them to one name each: data.label_map in a recipe"
    ),
    "unseen_labels": Kind("labels that no train row has", "fix", (), "training refuses them: add train rows, or rename them"),
    "imbalance": Kind(
        "classes of unlike size, {ratio}:1",
        "fix",
        ("balance=[inverse_frequency]", "training.best_metric=f1_macro"),
        "weighs classes alike",
    ),
    "rare_labels": Kind("classes of fewer than {least} rows", "look", (), "add rows, or join classes with data.label_map"),
    "far_targets": Kind("target far from all others", "look", (), "see whether the numbers are right"),
    "constant_target": Kind("all targets are the same", "fix", (), "there is nothing to learn"),
    "mislabelled_numbers": Kind("label likely wrong", "look", (), "see which label is right"),
    "mislabelled": Kind("label likely wrong", "look", ("clean=[mislabelled]",), "leaves them out of the train rows"),
    # rows beside rows
    "duplicates": Kind("texts of an earlier row", "fix", ("clean=[duplicates]",), "keeps the first of them"),
    "near_duplicates": Kind(
        "nearly the text of an earlier row",
        "fix",
        ("clean=[near_duplicates]", "clean.near_duplicates.shingle_size={shingle_size}"),
        "keeps the first of them",
    ),
    "contradictions": Kind(
        "same text, unlike labels",
        "fix",
        ("clean=[duplicates]", "clean.duplicates.contradictions=drop"),
        "drops all of them",
    ),
    "near_contradictions": Kind(
        "nearly the same text, unlike labels",
        "look",
        (
            "clean=[near_duplicates]",
            "clean.near_duplicates.contradictions=drop",
            "clean.near_duplicates.shingle_size={shingle_size}",
        ),
        "drops all of them",
    ),
    "leaks": Kind("also in {other}", "fix", ("clean=[leaks]",), "leaves them out of the train rows"),
    "near_leaks": Kind(
        "nearly in {other}",
        "fix",
        ("clean=[near_leaks]", "clean.near_leaks.shingle_size={shingle_size}"),
        "leaves them out of the train rows",
    ),
    "held_out_twice": Kind("also in {other}", "look", (), "leave them out of one of the two files"),
    "held_out_nearly_twice": Kind("nearly in {other}", "look", (), "leave them out of one of the two files"),
    "split_leaks": Kind(
        "also in {other}, from the same file", "fix", ("clean=[duplicates]",), "leaves them out before the split"
    ),
    "near_split_leaks": Kind(
        "nearly in {other}, from the same file",
        "fix",
        ("clean=[near_duplicates]", "clean.near_duplicates.shingle_size={shingle_size}"),
        "leaves them out before the split",
    ),
    "same_numbers": Kind("the numbers of an earlier row", "look", (), "see whether the row was meant to stand there twice"),
    "contradicting_numbers": Kind("same numbers, unlike labels", "look", (), "see which label is right"),
    "leaked_numbers": Kind("numbers also in {other}", "look", (), "leave the rows out of one of the two files"),
    "outliers": Kind("unlike all other rows", "look", (), "see whether they belong there"),
    "constant_features": Kind(
        "columns with one value: {columns}", "fix", ("data.feature_columns={others}",), "leaves them out"
    ),
    "no_split": Kind(
        "rows cannot be set aside: {why}",
        "look",
        ("split.validation_fraction=0", "split.test_fraction=0"),
        "sets none aside; split=random goes by no class",
    ),
}
# Cleaners in the order in which they make sense together.
CLEANERS = (
    "mojibake",
    "html",
    "unicode",
    "control",
    "urls",
    "whitespace",
    "segment",
    "length",
    "duplicates",
    "near_duplicates",
    "leaks",
    "near_leaks",
    "mislabelled",
)


@dataclass(frozen=True)
class Example:
    """A row: its place as file:row, its text, and what is to be said about it."""

    place: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Rows of a split that have something in common.

    Attributes:
        kind: of `KINDS`.
        split: whose rows.
        count: of them.
        total: rows of the split.
        examples: some of them, the most telling first.
        facts: what fills the {names} of the kind's title and overrides.
    """

    kind: str
    split: str
    count: int
    total: int
    examples: tuple[Example, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return KINDS[self.kind].title.format_map(self.facts)

    @property
    def weight(self) -> str:
        return KINDS[self.kind].weight

    @property
    def overrides(self) -> list[str]:
        """The words of the command line that deal with it."""
        return overrides(self.kind, self.facts)

    @property
    def advice(self) -> str:
        return KINDS[self.kind].advice


def overrides(kind: str, facts: dict[str, Any]) -> list[str]:
    """A kind's overrides with its facts; a shingle size that is the packaged one goes without saying."""
    words = [word for word in KINDS[kind].overrides if not (word.endswith("{shingle_size}") and facts["shingle_size"] == 5)]
    return [_filled(word, facts) for word in words]


def together(findings: Sequence[Finding], *, already: Sequence[str] = ()) -> list[str]:
    """One list of overrides for all findings that are to be fixed.

    Args:
        findings: of one inspection.
        already: names of cleaners that the config has.
    """
    words = [word for finding in findings if finding.weight == "fix" for word in finding.overrides]
    named = [name for word in words if word.startswith("clean=[") for name in word[len("clean=[") : -1].split(",")]
    for exact, near in (("duplicates", "near_duplicates"), ("leaks", "near_leaks")):
        if near in named and exact in named and f"clean.{exact}.contradictions=drop" not in words:
            named = [name for name in named if name != exact]  # near ones are the exact ones, too
    wanted = {*named, *already}
    chosen = [name for name in CLEANERS if name in wanted]
    chosen += [name for name in already if name not in chosen]
    rest: dict[str, str] = {}
    for word in words:
        if not word.startswith("clean=["):
            rest.setdefault(word.partition("=")[0], word)  # of several splits, the train rows come first
    return ([f"clean=[{','.join(chosen)}]"] if named else []) + [*rest.values()]


def examples(table: pa.Table, rows: np.ndarray, notes: Sequence[str] = (), *, around: str | None = None) -> tuple[Example, ...]:
    """The first few of some rows of a table.

    Args:
        table: of the rows.
        rows: their indices.
        notes: what is to be said about each.
        around: a pattern of RE2 that long texts are shown around; None: they are shown from their beginning.
    """
    rows = rows[:NUM_EXAMPLES]
    names = [name for name in ("file", "row", "text", "text_pair", "features") if name in table.column_names]
    taken = table.select(names).take(pa.array(rows, pa.int64())).to_pylist()
    notes = [*notes[: len(rows)], *[""] * (len(rows) - len(notes))]
    return tuple(Example(place(row), text_of(row, around=around), note) for row, note in zip(taken, notes, strict=True))


def place(row: dict[str, Any]) -> str:
    return f"{row['file']}:{row['row']}"


def text_of(row: dict[str, Any], *, around: str | None = None) -> str:
    """What a row says, in a few hundred characters."""
    if "features" in row:
        return ", ".join(f"{value:.5g}" for value in row["features"])
    text = " | ".join(row[name] or "" for name in ("text", "text_pair") if name in row)
    if len(text) <= _SHOWN:
        return _visible(text)
    start = max(pc.find_substring_regex(text, around).as_py(), 0) if around else 0
    start = max(0, len(text.encode()[:start].decode(errors="ignore")) - _BEFORE)
    return ("…" if start else "") + _visible(text[start : start + _SHOWN]) + ("…" if start + _SHOWN < len(text) else "")


def _visible(text: str) -> str:
    """The text with what one cannot see spelled out, apart from line ends and joiners."""
    return "".join(c if c.isprintable() or c in "\n\t\u200c\u200d" else ascii(c)[1:-1] for c in text)


def _filled(word: str, facts: dict[str, Any]) -> str:
    for name, value in facts.items():  # not str.format: a mapping of labels has braces of its own
        word = word.replace(f"{{{name}}}", str(value))
    return word
