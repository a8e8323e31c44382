"""What is odd about texts is found, and what is not odd is left alone."""

import numpy as np
import pyarrow as pa
import pytest

from llmtune.inspection import texts
from llmtune.inspection.scripts import SCRIPTS, Scripts


def table(values: list[str | None], **more: list) -> pa.Table:
    return pa.table(
        {"text": pa.array(values, pa.string()), **more, "file": ["f"] * len(values), "row": list(range(len(values)))}
    )


def kinds(*values: str | None) -> set[str]:
    return {finding.kind for finding in texts.look("train", table(list(values))).findings}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "blank"),
        (None, "blank"),
        (" \t\n", "blank"),
        ("lost \ufffd", "replacement"),
        ("a\u200bb", "control"),
        ("a\x00b", "control"),
        ("cafÃ©", "mojibake"),
        ("Itâ€™s", "mojibake"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "mojibake"),
        ("a<br />b", "html"),
        ("a &amp; b", "html"),
        ("https://a.b/c www.d.e", "only_urls"),
        ("see https://a.b", "urls"),
        ("e\u0301", "unicode"),
        ("ＡＢ１", "compatibility"),
        ("a  b", "whitespace"),
        ("ha ha ha ha ha", "repeated"),
        ("!!!!!!!!", "repeated"),
        ("pаypal", "mixed_letters"),
    ],
)
def test_oddities(text: str | None, kind: str):
    assert kind in kinds(text)


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "I <3 you",
        "AT&T",
        "Straße, Ärger, Çà et là",
        "naïve café",
        "好電影。",
        "Привет",
        "no no",
        "R&D; ok",
        "😀👩‍👩‍👧",
    ],
)
def test_what_is_not_odd(text: str):
    assert kinds(text) == set()


def test_counts_and_places():
    found = texts.look("test", table(["fine words", "", "a <b>c</b>"] * 20))
    blank, html = (next(f for f in found.findings if f.kind == kind) for kind in ("blank", "html"))
    assert (blank.count, html.count, html.total, html.split) == (20, 20, 60, "test")
    assert [example.place for example in html.examples] == ["f:2", "f:5", "f:8", "f:11", "f:14"]
    assert found.lengths_N.tolist()[:3] == [10, 0, 10]


def test_both_texts_of_a_pair_are_looked_at():
    found = texts.look("train", table(["a", ""], text_pair=["b &amp; c", None]))
    assert {f.kind: f.count for f in found.findings} == {"html": 1, "blank": 1}
    assert found.lengths_N.tolist() == [10, 0]


def test_scripts_by_most_letters():
    values = ["hello", "привет мир ok", "你好", "ありがとう世界", "안녕", "123 !", "", "ελληνικά", "สวัสดี", "नमस्ते", "ꯃꯤꯇꯩ"]
    found = [SCRIPTS[i] for i in Scripts().of(pa.array(values))]
    assert found == ["Latin", "Cyrillic", "Han", "Kana", "Hangul", "none", "none", "Greek", "Thai", "Devanagari", "other"]


def test_rows_in_another_script_are_told_where_one_is_the_rule():
    found = texts.look("train", table(["hello there"] * 9 + ["привет"])).findings
    assert [(f.kind, f.count, f.examples[0].note) for f in found] == [("other_script", 1, "Cyrillic, not Latin")]
    assert kinds("hello", "привет", "hello you", "привет мир") == set()


def test_extreme_lengths():
    found = texts.look("train", table(["some words here"] * 50 + ["a", "word " * 2000])).findings
    bounds = {f.kind: f.facts["bound"] for f in found if f.kind in ("short", "long")}
    assert 1 < bounds["short"] < 15 < bounds["long"] < 10_000
    assert {f.kind: f.count for f in found if f.kind in bounds} == {"short": 1, "long": 1}


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    values = table(["a <br>", "b", "", "привет", "e\u0301"] * 30)
    whole = texts.look("train", values)
    monkeypatch.setattr(texts, "_ROWS", 7)
    parts = texts.look("train", values)
    assert parts.findings == whole.findings and parts.scripts == whole.scripts
    assert (parts.lengths_N == whole.lengths_N).all() and isinstance(parts.lengths_N, np.ndarray)
