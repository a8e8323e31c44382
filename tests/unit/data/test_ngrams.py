"""Hashed n-grams against plain Python."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data import ngrams
from llmtune.data.ngrams import hashed_ngrams

TEXTS = ["The cat, the cat sat!", "", "cat", "the film 電影很好 ok", "😀 naïve café", "a" * 50, "don't"]


def counted(texts: list[str | None], **how) -> np.ndarray:
    return hashed_ngrams(pa.array(texts, pa.string()), **{"bits": 18, "max_chars": 1000, **how}).toarray()


def words_of(text: str) -> list[str]:
    return re.findall(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+", text.lower())


@pytest.mark.parametrize("order", [1, 2, 3])
def test_as_many_as_there_are(order: int):
    found = counted(TEXTS, words=(order,))
    for text, row in zip(TEXTS, found, strict=True):
        words = words_of(text)
        grams = [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
        assert sorted(row[row > 0]) == sorted(grams.count(g) for g in set(grams)), text


def test_equal_words_share_a_column_wherever_they_stand():
    found = counted(["one two three", "three TWO one", "two", "twofold"], words=(1,))
    assert (found[0] == found[1]).all()
    assert (found[0] >= found[2]).all() and found[2].sum() == 1
    assert (found[0] * found[3]).sum() == 0


def test_pairs_of_words_know_their_order():
    found = counted(["new york", "york new"], words=(2,))
    assert (found[0] * found[1]).sum() == 0 and (found.sum(axis=1) == 1).all()


def test_characters_do_not_cross_rows_and_punctuation_is_a_blank():
    found = counted(["ab,cd", "ab cd", "abcd", "ab", "cd"], words=(), chars=(3,))
    assert (found[0] == found[1]).all() and found[0].sum() == 3
    assert found[2].sum() == 2 and not found[3].any() and not found[4].any()


def test_long_texts_are_cut_and_nulls_are_empty():
    found = counted(["one two three", None], words=(1,), max_chars=7)
    assert found[0].sum() == 2 and not found[1].any()
    assert counted([], words=(1,)).shape == (0, 1 << 18)


@settings(max_examples=50)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_a_row_is_counted_alike_alone_and_among_others(texts: list[str]):
    together = counted(texts, bits=12, chars=(2,))
    for i, text in enumerate(texts):
        assert (counted([text], bits=12, chars=(2,))[0] == together[i]).all()


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    whole = counted(TEXTS * 3, chars=(3,))
    monkeypatch.setattr(ngrams, "_PART", 16)
    assert (counted(TEXTS * 3, chars=(3,)) == whole).all()
