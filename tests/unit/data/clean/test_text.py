"""What each cleaner makes of texts."""

import time
import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data.clean import registry, text
from llmtune.data.clean.words import num_words

PLAIN = ["a good film", "这部电影很好看", "👩‍👩‍👧 می‌خواهم", "i <3 rain & snow, 3 < 4 > 2", ""]


def cleaned(function, texts: list[str | None], **options) -> list[str | None]:
    return function(pa.array(texts, pa.string()), **options).to_pylist()


EXAMPLES = {
    "unicode NFC": (text.unicode, {"form": "NFC"}, "e\u0301 ﬁ Ａ", "é ﬁ Ａ"),
    "unicode NFKC": (text.unicode, {"form": "NFKC"}, "e\u0301 ﬁ Ａ１", "é fi A1"),
    "tags": (text.html, {"tags": True, "entities": True}, "so<br />good<b class='x>y'>!</b>", "so good ! "),
    "comments": (text.html, {"tags": True, "entities": True}, "a<!-- <b> -->b<!DOCTYPE html>c", "a b c"),
    "scripts": (text.html, {"tags": True, "entities": True}, "a<script>if (1<2) x()</script>b<STYLE>p{}</STYLE>c", "a b c"),
    "entities": (text.html, {"tags": True, "entities": True}, "a &amp; b&nbsp;&#39;&lt;b&gt;", "a & b\xa0'<b>"),
    "tags alone": (text.html, {"tags": True, "entities": False}, "<i>a</i> &amp; b", " a  &amp; b"),
    "entities alone": (text.html, {"tags": False, "entities": True}, "<i>a</i> &amp; b", "<i>a</i> & b"),
    "urls": (text.urls, {"replacement": "<url>"}, "see https://a.b/c?d=e, WWW.x.org.", "see <url>, <url>."),
    "urls in Chinese": (text.urls, {"replacement": ""}, "看http://t.cn/abc。好", "看。好"),
    "a backslash": (text.urls, {"replacement": r"\1"}, "www.a.b", r"\1"),
    "whitespace": (text.whitespace, {"keep_lines": False}, " a\t b\u3000\xa0c\r\n", "a b c"),
    "lines": (text.whitespace, {"keep_lines": True}, "a  b \r\n\n\n\n c\n", "a b\n\nc\n"),
    "control": (text.control, {}, "\ufeffa\x00b\x1b[0m\u200b\xadc\u202e\td\n", "ab[0mc\td\n"),
    "Chinese words": (text.segment, {}, "房间good很干净，但是 太贵\n了", "房间 good 很 干净 ， 但是 太贵\n了"),
    "mojibake": (text.mojibake, {}, "sÃ³ nÃ£o â€” schÃ¶n", "só não — schön"),
}


@pytest.mark.parametrize(("function", "options", "given", "wanted"), EXAMPLES.values(), ids=EXAMPLES)
def test_examples(function, options, given, wanted):
    if function is text.mojibake:
        pytest.importorskip("ftfy")
    if function is text.segment:
        pytest.importorskip("rjieba")
    assert cleaned(function, [given, None, "plain"], **options) == [wanted, None, "plain"]


ALL = [
    (text.unicode, {"form": "NFC"}),
    (text.html, {"tags": True, "entities": True}),
    (text.urls, {"replacement": ""}),
    (text.whitespace, {"keep_lines": False}),
    (text.whitespace, {"keep_lines": True}),
    (text.control, {}),
]


@pytest.mark.parametrize(("function", "options"), ALL)
def test_plain_texts_stay(function, options):
    assert cleaned(function, PLAIN, **options) == PLAIN


@pytest.mark.parametrize(("function", "options"), ALL)
def test_no_rows_and_rows_of_null(function, options):
    assert cleaned(function, [], **options) == []
    assert cleaned(function, [None, None], **options) == [None, None]


@given(st.lists(st.text(max_size=20), max_size=8))
@settings(max_examples=60)
def test_a_row_does_not_depend_on_the_others(texts: list[str]):
    for function, options in ALL:
        whole = cleaned(function, texts, **options)
        assert whole == [cleaned(function, [one], **options)[0] for one in texts]
        sliced = pa.array(["x", *texts], pa.string())[1:]
        assert function(sliced, **options).to_pylist() == whole


@given(
    st.text(
        alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t\n\r\x0b\x1f\x85\xa0\u2003\u3000")), max_size=30
    )
)
@settings(max_examples=200)
def test_whitespace_is_that_of_python(value: str):
    assert cleaned(text.whitespace, [value], keep_lines=False) == [" ".join(value.split())]


@given(st.text(max_size=30))
@settings(max_examples=100)
def test_nothing_but_control_and_format_characters_goes(value: str):
    kept = cleaned(text.control, [value])[0]
    gone = [character for character in value if character not in kept]
    assert all(unicodedata.category(character) in ("Cc", "Cf", "Cn") for character in gone)
    assert not any(unicodedata.category(character) == "Cc" for character in kept if character not in "\t\n\r")


BROKEN = ["<a " * 50_000, '<a x="' * 50_000, "-->" + "<!--" * 50_000, "<script>" * 50_000, "<" * 100_000]


@pytest.mark.parametrize("value", BROKEN, ids=range(len(BROKEN)))
def test_broken_html_takes_no_longer_than_it_is(value: str):
    started = time.process_time()
    cleaned(text.html, [value], tags=True, entities=True)
    assert time.process_time() - started < 3


def test_words():
    texts = ["", None, "  ", "two words", " a-b, c\u3000d\n", "这部film很好", "𠀀𠀁", "🙂 🙂"]
    assert num_words(pa.array(texts)).tolist() == [0, 0, 0, 2, 3, 5, 2, 2]
    assert num_words(pa.array(texts)[3:5]).tolist() == [2, 3]
    assert num_words(pa.array([], pa.string())).tolist() == []


def test_cleaners_act_in_written_order(cleaners):
    both = cleaners("html", "whitespace"), cleaners("whitespace", "html")
    value = pa.array(["a<br/> b"])
    found = [registry.rebuild(registry.described(clean))(value).to_pylist() for clean in both]
    assert found == [["a b"], ["a  b"]]


def test_what_is_told_of_texts_is_nothing_of_rows(cleaners):
    clean = cleaners("html", "duplicates", "length", "unicode")
    assert [section["type"] for section in registry.described(clean)] == ["html", "unicode"]
    assert registry.told(registry.described(clean)) == "html (tags True, entities True); then unicode (form 'NFC')"
    assert registry.rebuild([])(pa.array([" <b>"])).to_pylist() == [" <b>"]
    with pytest.raises(ValueError):
        registry.rebuild([{"type": "lowercase"}])
