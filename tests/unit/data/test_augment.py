"""Augmenters: what they may do to a text, and that the generator's key alone decides."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.config.sections.augment import DropWords, SwapWords
from llmtune.data.augment import registry, words
from llmtune.randomness import generator

TEXTS = st.text(st.sampled_from("ab c\n.你好か\U00020000"), max_size=40)
RATES = st.floats(0, 0.99)


def rng(key=0):
    return generator(key, "augment", 0, 0)


def pieces(text: str) -> list[str]:
    return [word for _, word in words._WORD.findall(text)]


@given(text=TEXTS, rate=RATES, key=st.integers(0, 100))
def test_drop_keeps_some_words_in_their_order(text, rate, key):
    before, after = pieces(text), pieces(words.drop(text, rng(key), rate=rate))
    rest = iter(before)
    assert all(word in rest for word in after)  # a subsequence
    assert bool(after) == bool(before)


@given(key=st.integers(0, 100))
def test_a_swap_always_exchanges_two_words(key):
    assert words.swap("one two", rng(key), rate=0.01) == "two one"
    assert words.swap("one two three", rng(key), rate=0.01) != "one two three"


@given(text=TEXTS, rate=RATES, key=st.integers(0, 100))
def test_swap_keeps_every_word(text, rate, key):
    changed = words.swap(text, rng(key), rate=rate)
    assert Counter(pieces(changed)) == Counter(pieces(text))
    if text.isascii():
        assert len(changed.rstrip()) == len(text.rstrip())


@pytest.mark.parametrize("change", [words.drop, words.swap])
@given(text=TEXTS, rate=RATES)
def test_the_key_decides(change, text, rate):
    assert change(text, rng(1), rate=rate) == change(text, rng(1), rate=rate)


@pytest.mark.parametrize("change", [words.drop, words.swap])
def test_other_keys_give_other_texts(change):
    text = " ".join(map(str, range(50)))
    assert len({change(text, rng(key), rate=0.3) for key in range(20)}) == 20


@pytest.mark.parametrize("text", ["我喜欢这部电影", "これは映画です"])
def test_texts_without_spaces_are_changed_by_the_character(text):
    dropped = words.drop(text, rng(), rate=0.5)
    assert 0 < len(dropped) < len(text) and set(dropped) <= set(text)
    swapped = words.swap(text, rng(), rate=0.5)
    assert swapped != text and sorted(swapped) == sorted(text)


def test_words_do_not_grow_together():
    text = "用Python写Java和C"
    for key in range(30):
        for change in (words.drop, words.swap):
            assert set(pieces(change(text, rng(key), rate=0.5))) <= set(pieces(text))


def test_the_share_of_dropped_words_is_the_rate():
    text = " ".join(["word"] * 20_000)
    kept = len(words.drop(text, rng(), rate=0.3).split()) / 20_000
    assert abs(kept - 0.7) < 0.015


@pytest.mark.parametrize("change", [words.drop, words.swap])
@pytest.mark.parametrize("text", ["", " \n", "one", "  one "])
def test_too_short_a_text_stays(change, text):
    assert change(text, rng(), rate=0.9) == text


@pytest.mark.parametrize("change", [words.drop, words.swap])
def test_a_rate_of_zero_changes_nothing(change):
    assert change("one two three", rng(), rate=0.0) == "one two three"


def test_several_are_applied_in_written_order():
    drop, swap = DropWords(type="drop", rate=0.5), SwapWords(type="swap", rate=0.5)
    text = " ".join(map(str, range(30)))
    expected = rng()
    by_hand = words.swap(words.drop(text, expected, rate=0.5), expected, rate=0.5)
    assert registry.build({"first": drop, "second": swap})(text, rng()) == by_hand
    assert registry.build({"second": swap, "first": drop})(text, rng()) != by_hand
    assert registry.build({})(text, rng()) == text


def test_each_type_of_the_schema_has_its_code():
    assert set(registry.AUGMENTERS) == {
        section.model_fields["type"].annotation.__args__[0] for section in (DropWords, SwapWords)
    }
    assert isinstance(rng(), np.random.Generator)
