"""Tokens cut off and hidden: how many, which ones never, and by what they are replaced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.config.sections.augment import DropWords
from llmtune.config.sections.augment_model import CutOff, MaskTokens
from llmtune.data.augment import tokens
from llmtune.errors import ConfigError
from llmtune.randomness import generator

SPECIAL, HIDDEN = (0, 1, 2), 9
PAIR = {"input_ids": np.array([1, 20, 21, 22, 2, 30, 31, 2]), "token_type_ids": np.array([0, 0, 0, 0, 0, 1, 1, 1])}
ROWS = st.lists(st.integers(0, 40), min_size=1, max_size=30)


def cut_off(rate=0.3, replace="nothing", special_ids=SPECIAL, hidden_id=HIDDEN):
    section = CutOff(type="cutoff", rate=rate, replace=replace)
    return tokens.build({"cutoff": section}, special_ids=special_ids, hidden_id=hidden_id)


def mask(rate=0.3, special_ids=SPECIAL, hidden_id=HIDDEN):
    return tokens.build({"mask": MaskTokens(type="mask", rate=rate)}, special_ids=special_ids, hidden_id=hidden_id)


def row(*ids):
    return {"input_ids": np.array(ids)}


def rng(key=0):
    return generator(key, "augment tokens", 0, 0)


def test_a_span_is_taken_out():
    ids = np.arange(10, 30)
    kept = cut_off(0.25)(row(1, *ids, 2), rng())["input_ids"].tolist()
    gone = sorted(set(ids.tolist()) - set(kept))
    assert kept[0] == 1 and kept[-1] == 2 and len(gone) == 5 and gone == list(range(gone[0], gone[0] + 5))


def test_every_place_is_cut():
    changed = [cut_off(0.25)(row(1, 10, 11, 12, 13, 2), rng(key))["input_ids"].tolist() for key in range(60)]
    assert {tuple(ids) for ids in changed} == {
        (1, 11, 12, 13, 2),
        (1, 10, 12, 13, 2),
        (1, 10, 11, 13, 2),
        (1, 10, 11, 12, 2),
    }


def test_a_pair_keeps_its_types_and_separators():
    for key in range(20):
        changed = cut_off(0.5)(PAIR, rng(key))
        ids, types = changed["input_ids"].tolist(), changed["token_type_ids"].tolist()
        assert len(ids) == len(types) and ids.count(2) == 2 and ids[0] == 1 and ids[-1] == 2
        kind = dict(zip(PAIR["input_ids"].tolist(), PAIR["token_type_ids"].tolist(), strict=True))
        assert all(kind[token] == t for token, t in zip(ids, types, strict=True) if token not in SPECIAL)


def test_a_span_is_hidden():
    changed = cut_off(0.5, "mask")(row(1, 10, 11, 12, 13, 2), rng())["input_ids"].tolist()
    assert len(changed) == 6 and changed.count(HIDDEN) == 2 and abs(changed.index(HIDDEN) - changed[::-1].index(HIDDEN)) <= 5


def test_the_share_that_is_hidden():
    ids = row(1, *[10] * 5000, 2)
    changed = mask(0.3)(ids, rng())["input_ids"]
    assert changed[0] == 1 and changed[-1] == 2
    assert (changed == HIDDEN).mean() == pytest.approx(0.3, abs=0.03)


@given(ids=ROWS, rate=st.floats(0.01, 0.99), key=st.integers(0, 1000))
def test_something_is_left_and_the_row_itself_is_unchanged(ids, rate, key):
    given_row = {"input_ids": np.array(ids)}
    for change in (cut_off(rate), cut_off(rate, "mask"), mask(rate)):
        changed = change(given_row, rng(key))["input_ids"]
        specials = [i for i in ids if i in SPECIAL]
        assert [i for i in changed.tolist() if i in SPECIAL] == specials
        plain = [i for i in ids if i not in SPECIAL]
        left = [i for i in changed.tolist() if i not in SPECIAL and i != HIDDEN]
        assert bool(left) == bool([i for i in plain if i != HIDDEN]) or HIDDEN in ids
        assert given_row["input_ids"].tolist() == ids


def test_rows_too_short_to_be_cut():
    for ids in ((1, 2), (1, 10, 2), (0,)):
        assert cut_off(0.9)(row(*ids), rng())["input_ids"].tolist() == list(ids)
        assert mask(0.99)(row(*ids), rng())["input_ids"].tolist() == list(ids)


def test_a_tokenizer_that_cannot_hide():
    assert cut_off(hidden_id=None)(row(1, 10, 11, 2), rng())["input_ids"].size == 3
    with pytest.raises(ConfigError, match=r"augment\.mask: .*neither a mask token nor an unknown one"):
        mask(hidden_id=None)
    with pytest.raises(ConfigError, match=r"augment\.cutoff\.replace=nothing"):
        cut_off(replace="mask", hidden_id=None)


def test_other_augmenters_are_passed_over():
    drop = DropWords(type="drop", rate=0.1, probability=1.0, texts="both", protect=(), chinese="words")
    assert tokens.build({"drop": drop}, special_ids=SPECIAL, hidden_id=HIDDEN) is None
    assert not tokens.hides({"cutoff": CutOff(type="cutoff", rate=0.1, replace="nothing")})
    assert tokens.hides({"mask": MaskTokens(type="mask", rate=0.1)})
