"""Exact and near duplicates, against sets and loops in plain Python."""

from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmtune.data import duplicates, minhash
from llmtune.data.spool import Spool

WORDS = ["film", "good", "bad", "plot", "actor", "scene", "never", "again", "watch", "music", "電影", "好看", "🙂"]
NEAR = {"threshold": 0.7, "shingle_size": 5}


def column(texts: list[str | None]) -> list[pa.ChunkedArray]:
    """In two chunks, as tables of several files have."""
    half = len(texts) // 2
    return [pa.chunked_array([pa.array(texts[:half], pa.string()), pa.array(texts[half:], pa.string())])]


@cache
def shingle_set(text: str, size: int) -> set[str]:
    text = " ".join(text.lower().split())
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def jaccard(text: str, other: str, size: int = 5) -> float:
    mine, theirs = shingle_set(text, size), shingle_set(other, size)
    return len(mine & theirs) / len(mine | theirs)


def sentences(num: int, *, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 40))) for _ in range(num)]


def with_near_copies(texts: list[str]) -> list[str]:
    return texts + [f"{text} {text[:4]}" for text in texts]


class TestExact:
    def test_the_first_row_is_named(self):
        assert duplicates.exact_clusters(column(["a", "b", "a", "A", "b"])).tolist() == [0, 1, 0, 3, 1]

    def test_blank_rows_are_alike_to_none(self):
        assert duplicates.exact_clusters(column(["", None, " ", "", "x", "x"])).tolist() == [0, 1, 2, 3, 4, 4]

    def test_both_texts_of_a_pair_count(self):
        pairs = [*column(["a", "a", "a", "ab"]), *column(["b", "c", "b", ""])]
        assert duplicates.exact_clusters(pairs).tolist() == [0, 1, 0, 3]

    def test_equal_hashes_are_not_enough(self, monkeypatch):
        monkeypatch.setattr(duplicates, "_hashes", lambda texts, spelled: np.zeros(len(texts), np.int64))
        assert duplicates.exact_clusters(column(["a", "b", "a"])).tolist() == [0, 1, 0]

    def test_of_another_table(self):
        found = duplicates.exact_matches(column(["a", "", "c", "b"]), column(["b", "a", "a", ""]))
        assert found.tolist() == [1, -1, -1, 0]

    @pytest.mark.parametrize("texts", [[], ["one"]])
    def test_few_rows(self, texts):
        assert duplicates.exact_clusters(column(texts)).tolist() == [*range(len(texts))]
        assert duplicates.exact_matches(column(texts), column([])).tolist() == [-1] * len(texts)
        assert duplicates.near_matches(column(texts), column([]), **NEAR).tolist() == [-1] * len(texts)
        assert duplicates.near_matches(column([]), column(texts), **NEAR).tolist() == []


class TestNear:
    def test_spelling_and_white_space_make_no_difference(self):
        texts = ["A good   film.", "another one", "a GOOD\nfilm. "]
        assert duplicates.near_clusters(column(texts), **NEAR).tolist() == [0, 1, 0]

    def test_blank_and_empty(self):
        assert duplicates.near_clusters(column(["", " ", None]), **NEAR).tolist() == [0, 1, 2]
        assert duplicates.near_clusters(column([]), **NEAR).tolist() == []

    def test_texts_shorter_than_a_shingle(self):
        assert duplicates.near_clusters(column(["ok", "no", "OK ", "o"]), **NEAR).tolist() == [0, 1, 0, 3]

    def test_chinese(self):
        text = "房间很干净，服务员的态度也非常好，离地铁站只有五分钟的路程，下次还会再来住的。"
        texts = [text, "交通不便，早餐也很差，不会再来。", text.replace("五", "十"), text + "推荐！"]
        assert duplicates.near_clusters(column(texts), threshold=0.7, shingle_size=3).tolist() == [0, 1, 0, 0]

    def test_pairs_at_the_threshold_and_above_are_found_and_no_others(self):
        texts = with_near_copies(sentences(150, seed=1))
        found = duplicates.near_clusters(column(texts), **NEAR)
        near = {(i, j) for j in range(len(texts)) for i in range(j) if jaccard(texts[i], texts[j]) >= 0.7}
        assert len(near) > 50
        together = {(i, j) for i, j in near if found[i] == found[j]}
        assert len(together) >= 0.98 * len(near)
        labels = np.arange(len(texts))
        for i, j in sorted(near):
            labels[labels == labels[j]] = labels[i]
        assert all(labels[i] == labels[first] for i, first in enumerate(found))  # no row is in a cluster without a reason

    def test_a_chain_is_one_cluster_and_the_first_row_its_name(self):
        text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
        texts = ["something else", text, text + " sixteen", text + " sixteen seventeen", text + " sixteen seventeen eighteen"]
        assert duplicates.near_clusters(column(texts), threshold=0.85, shingle_size=5).tolist() == [0, 1, 1, 1, 1]
        assert jaccard(texts[1], texts[4]) < 0.85

    def test_of_another_table(self):
        texts = sentences(100, seed=2)
        copies = [f"{text} {text[:4]}" for text in texts]
        found = duplicates.near_matches(column(copies), column([*texts, *texts]), **NEAR)
        near = np.array([jaccard(text, copy) >= 0.7 for text, copy in zip(texts, copies, strict=True)])
        assert near.sum() > 30
        assert (found[near] >= 0).mean() >= 0.98
        assert all(jaccard(copies[i], texts[j]) >= 0.7 for i, j in enumerate(found) if j >= 0)

    def test_large_signatures_lie_on_the_disk(self, tmp_path):
        texts = with_near_copies(sentences(80, seed=3))
        spool = Spool(tmp_path, limit=100)
        assert spool.array((3, 50), np.dtype(np.uint32)).sum() == 0
        held, spooled = (duplicates.near_clusters(column(texts), **NEAR, spool=s) for s in (None, spool))
        assert (held == spooled).all()
        assert not list(tmp_path.iterdir())

    def test_a_thousand_copies_are_found_at_once(self):
        text = sentences(1, seed=4)[0]
        texts = [f"{text} {number}" for number in range(1000)]
        assert set(duplicates.near_clusters(column(texts), **NEAR).tolist()) == {0}


class TestMinHash:
    @given(st.lists(st.text(max_size=30), max_size=20), st.integers(1, 8))
    @example(["", "\0"], 1)
    @example(["a", "a\0"], 2)
    @settings(max_examples=60)
    def test_similarities_are_those_of_sets(self, texts: list[str], size: int):
        plain = minhash.plain(pa.array(texts, pa.string()))
        other = plain[::-1]
        found = minhash.similarities(plain, other, size=size)
        sets = [{t[i : i + size] for i in range(max(1, len(t) - size + 1))} for t in plain.to_pylist()]
        wanted = [len(a & b) / len(a | b) for a, b in zip(sets, reversed(sets), strict=True)]
        assert found == pytest.approx(wanted)

    def test_equal_entries_estimate_the_similarity(self):
        texts = sentences(400, seed=5)
        copies = [text + " " + other[:20] for text, other in zip(texts, texts[1:] + texts[:1], strict=True)]
        mine, theirs = (minhash.plain(pa.array(t)) for t in (texts, copies))
        estimates = (minhash.signatures(mine, size=5) == minhash.signatures(theirs, size=5)).mean(0)
        errors = estimates - minhash.similarities(mine, theirs, size=5)
        assert abs(errors.mean()) < 0.01
        assert np.abs(errors).max() < 0.2

    def test_signatures_do_not_depend_on_the_other_rows(self, monkeypatch):
        texts = minhash.plain(pa.array([*sentences(300, seed=6), "x" * 70_000]))
        whole = minhash.signatures(texts, size=5)
        monkeypatch.setattr(minhash, "_PART", 1000)
        assert (minhash.signatures(texts, size=5) == whole).all()
        assert (minhash.signatures(texts[7:9], size=5) == whole[:, 7:9]).all()

    @pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
    def test_bands_find_pairs_at_the_threshold(self, threshold: float):
        size = minhash.bands(threshold)
        assert (1 - threshold**size) ** (minhash.NUM_HASHES // size) <= 0.01
