"""Slips of letters, keys, sounds, capitals and marks: how many there are, and of what kind."""

import re

import pytest

from llmtune.data.augment import noise
from llmtune.randomness import generator

LETTERS = "abcdefghij klmnopqrst " * 500
RATE = 0.2
MARKS = "[。，；：！？.,;:!?]"


def rng(key=0):
    return generator(key, "augment", 0, 0)


def share_changed(before: str, after: str) -> float:
    """Of the letters, where texts are equally long."""
    return sum(a != b for a, b in zip(before, after, strict=True)) / sum(c.isalpha() for c in before)


@pytest.mark.parametrize(("operation", "growth"), [("insert", 1), ("delete", -1), ("substitute", 0)])
def test_slips_are_as_many_as_the_rate_says(operation, growth):
    text = noise.characters(LETTERS, rng(), rate=RATE, protect=(), operations=[operation])
    if growth:
        assert (len(text) - len(LETTERS)) / 10_000 == pytest.approx(growth * RATE, abs=0.015)
    else:
        assert share_changed(LETTERS, text) == pytest.approx(RATE * 19 / 20, abs=0.015)  # one in twenty draws the same letter
    assert text.count(" ") == LETTERS.count(" ")


def test_a_transposition_exchanges_neighbours():
    assert noise.characters("ab", rng(), rate=0.9, protect=(), operations=["transpose"]) in ("ab", "ba")
    seen = {noise.characters("xy z", rng(key), rate=0.4, protect=(), operations=["transpose"]) for key in range(30)}
    assert seen == {"xy z", "yx z"}


def test_new_letters_are_of_the_script_of_the_text():
    for text in ("酒店环境不错", "фильм хороший", "סרט טוב מאוד"):
        for key in range(20):
            after = noise.characters(text, rng(key), rate=0.5, protect=(), operations=["insert", "substitute"])
            assert set(after) <= set(text)


def test_numbers_and_emoji_are_left_alone():
    text = "2024 😀👩\u200d💻 3.5!"
    assert noise.characters(text, rng(), rate=0.9, protect=(), operations=["delete", "substitute"]) == text


@pytest.mark.parametrize("layout", ["qwerty", "qwertz", "azerty"])
def test_neighbouring_keys(layout):
    near = noise.neighbours(layout)
    assert set(near) == set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert all(key in near[other] for key in near for other in near[key])
    assert all(2 <= len(others) <= 6 and key not in others for key, others in near.items())


def test_the_keys_around_g():
    assert set(noise.neighbours("qwerty")["g"]) == set("tyfhvb")
    assert set(noise.neighbours("qwertz")["Y"]) == set("ASX")
    assert set(noise.neighbours("azerty")["a"]) == set("zq")


def test_typos_keep_length_and_case():
    text = "The Film 电影 é"
    for key in range(30):
        after = noise.keyboard(text, rng(key), rate=0.5, protect=(), layout="qwerty")
        assert len(after) == len(text) and after.endswith(" 电影 é")
        assert [c.isupper() for c in after] == [c.isupper() for c in text]
    assert share_changed(LETTERS, noise.keyboard(LETTERS, rng(), rate=RATE, protect=(), layout="qwerty")) == pytest.approx(
        RATE, abs=0.015
    )


def test_homophones_sound_alike_and_are_common():
    from pypinyin import lazy_pinyin

    text = "酒店环境不错但是服务态度很差早餐也一般" * 50
    after = noise.homophones(text, rng(), rate=RATE, protect=())
    assert lazy_pinyin(list(text)) == lazy_pinyin(list(after))
    assert share_changed(text, after) == pytest.approx(RATE, abs=0.04)
    after.encode("gb2312")
    assert noise.homophones("film 123 ひらがな", rng(), rate=0.9, protect=()) == "film 123 ひらがな"


def test_traditional_characters_become_traditional_ones():
    alike = noise.sounding_alike()
    assert "機" in alike and "飛" in alike
    assert not set(alike["飛"]) & set("飞废费")  # simplified ones of the same sound
    assert "非" in alike["飞"]


@pytest.mark.parametrize(
    ("style", "expected"), [("lower", "a quick fox"), ("upper", "A QUICK FOX"), ("capitalize", "A Quick Fox")]
)
def test_each_case(style, expected):
    assert noise.casing("a qUick Fox", rng(), rate=0.999999, protect=(), styles=[style]) == expected


def test_casing_takes_only_what_changes_a_word():
    text = "word " * 5000
    after = noise.casing(text, rng(), rate=RATE, protect=(), styles=["lower", "upper", "capitalize"]).split()
    assert set(after) == {"word", "WORD", "Word"}
    assert 1 - after.count("word") / 5000 == pytest.approx(RATE, abs=0.02)
    assert noise.casing("电影 123 ...", rng(), rate=0.9, protect=(), styles=["upper"]) == "电影 123 ..."


def test_marks_are_put_behind_words():
    text = "word " * 5000
    after = noise.punctuation(text, rng(), rate=RATE, protect=(), operations=["insert"])
    assert (len(after) - len(text)) / 5000 == pytest.approx(RATE, abs=0.02)
    assert {piece.removeprefix("word") for piece in after.split()} == {"", *".,;:!?"}


def test_marks_are_left_out_or_replaced():
    text = "well , yes . " * 2000
    deleted = noise.punctuation(text, rng(), rate=RATE, protect=(), operations=["delete"])
    assert (len(text) - len(deleted)) / 4000 == pytest.approx(RATE, abs=0.02)
    replaced = noise.punctuation(text, rng(), rate=RATE, protect=(), operations=["substitute"])
    assert sum(a != b for a, b in zip(text, replaced, strict=True)) / 4000 == pytest.approx(RATE, abs=0.02)


def test_chinese_gets_chinese_marks_and_numbers_stay_whole():
    text = "酒店不错，下次再来。花了3.5万"
    for key in range(30):
        after = noise.punctuation(text, rng(key), rate=0.5, protect=(), operations=["insert", "delete", "substitute"])
        assert "3.5" in after and not set(after) - set(text) - set("。，；：！？.,;:!?")
        assert re.sub(MARKS, "", after) == re.sub(MARKS, "", text)


def test_a_text_of_marks_alone_is_not_emptied():
    from tests.unit.data.test_augment import changed

    assert changed("punctuation", "...", rate=0.99, operations=("delete",)) == "..."
