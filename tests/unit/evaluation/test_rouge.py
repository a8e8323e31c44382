"""ROUGE against its formulas, written out plainly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.evaluation.rouge import longest_common, rouge, words

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


def longest_by_table(a: list[str], b: list[str]) -> int:
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            lengths[i][j] = lengths[i - 1][j - 1] + 1 if x == y else max(lengths[i - 1][j], lengths[i][j - 1])
    return lengths[-1][-1]


@given(WORDS, WORDS)
def test_the_longest_common_subsequence_is_that_of_the_table(a: list[str], b: list[str]):
    assert longest_common(a, b) == longest_by_table(a, b)


def test_scores_of_a_known_pair():
    # Six words against five: five in common, three pairs of 5 and 4, and "the cat sat on mat" in order.
    found = rouge("The cat sat on the mat.", "the cat sat on, mat")
    assert found["rouge1"] == pytest.approx(2 * 5 / 11)
    assert found["rouge2"] == pytest.approx(2 * 3 / 9)
    assert found["rougeL"] == pytest.approx(2 * 5 / 11)


def test_a_word_counts_as_often_as_both_have_it():
    assert rouge("yes yes yes", "yes")["rouge1"] == pytest.approx(2 * 1 / 4)


@pytest.mark.parametrize(("answer", "reference"), [("", ""), ("", "a"), ("a", ""), ("...", "!!!"), ("a", "b")])
def test_nothing_in_common(answer: str, reference: str):
    assert set(rouge(answer, reference).values()) == {0.0}


@given(st.text(max_size=30), st.text(max_size=30))
def test_scores_are_shares_and_do_not_depend_on_the_side(a: str, b: str):
    found = rouge(a, b)
    assert found == pytest.approx(rouge(b, a)) and all(0 <= score <= 1 for score in found.values())
    if len(words(a)) > 1:
        assert rouge(a, a) == {"rouge1": 1, "rouge2": 1, "rougeL": 1}


def test_ideographs_are_words_and_other_scripts_are_kept():
    assert words("电影Good，very_good 123! Größe がある") == [
        "电",
        "影",
        "good",
        "very",
        "good",
        "123",
        "grösse",
        "が",
        "あ",
        "る",
    ]
    assert rouge("电影很好", "电影不好")["rouge1"] == pytest.approx(0.75)
