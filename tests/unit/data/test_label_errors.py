"""Likely wrong labels: the maths against plain loops, planted errors, and the rows that cannot be judged."""

import numpy as np
import pyarrow as pa
import pytest

from llmtune.data import label_errors as module
from llmtune.data import ngrams
from llmtune.data.label_errors import label_errors


def column(values) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values)])


def moods(num_rows: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    words = {"good": ["fine", "great", "lovely"], "bad": ["awful", "dull", "poor"], "none": ["table", "chair", "lamp"]}
    names = np.array(sorted(words))[np.arange(num_rows) % 3]
    return [" ".join(["the", *rng.choice(words[name], 3), str(rng.choice(["film", "room"]))]) for name in names], names


def test_planted_errors_are_found_with_their_class():
    texts, names = moods(300)
    given = names.astype(object)
    given[[3, 100, 200]] = ["good", "none", "bad"]
    assert all(given[i] != names[i] for i in (3, 100, 200))
    found = label_errors([column(texts)], column(given.tolist()), seed=0)
    assert set(np.flatnonzero(found.is_likely_N)) == {3, 100, 200}
    assert [found.names[found.suggested_N[i]] for i in (3, 100, 200)] == names[[3, 100, 200]].tolist()
    assert set(np.argsort(found.score_N)[:3]) == {3, 100, 200}
    assert found.accuracy == pytest.approx(0.99)


def test_the_same_seed_gives_the_same_answer():
    texts, names = moods(90)
    names = np.random.default_rng(0).permutation(names).astype(object)
    first, again, other = (label_errors([column(texts)], names, seed=seed) for seed in (0, 0, 1))
    assert (first.score_N == again.score_N).all() and (first.score_N != other.score_N).any()


def test_confident_classes_are_those_of_the_paper():
    """Northcutt et al. 2021, equations 1 and 2, as loops."""
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet(np.ones(5), 200).astype(np.float32)  # no mean comes near _SURE
    classes = rng.integers(0, 5, 200)
    own, best, top = module._summed_up(lambda: iter([probabilities[:120], probabilities[120:]]), classes)
    found = module._confident_classes(own, classes, top, 5)
    thresholds = [np.mean([p[c] for p, k in zip(probabilities, classes, strict=True) if k == c]) for c in range(5)]
    for row, p in enumerate(probabilities):
        reached = [c for c in range(5) if p[c] >= thresholds[c]]
        assert found[row] == (max(reached, key=lambda c: p[c]) if reached else -1)
        assert own[row] == p[classes[row]]
        assert best[row] == max(p[c] for c in range(5) if c != classes[row])


def test_a_row_does_not_judge_itself():
    """Were a row among those that it is judged by, the word that it alone has would speak for its label."""
    texts, names = moods(120)
    texts[0] += " unheard"
    with_it = label_errors([column(texts)], names.astype(object), seed=0)
    texts[0] = texts[0].replace(" unheard", "")
    without = label_errors([column(texts)], names.astype(object), seed=0)
    assert with_it.score_N[0] < without.score_N[0] + 0.05


def test_rows_without_a_label_are_left_alone():
    texts, names = moods(60)
    labels = [None if i % 7 == 0 else name for i, name in enumerate(names.tolist())]
    found = label_errors([column(texts)], column(labels), seed=0)
    missing = np.arange(60) % 7 == 0
    assert (found.given_N[missing] == -1).all() and (found.suggested_N[missing] == -1).all()
    assert (found.score_N[missing] == 1).all() and not found.is_likely_N[missing].any()
    assert found.accuracy == 1


def test_pairs_numbers_and_several_batches(monkeypatch: pytest.MonkeyPatch):
    for place in (module, ngrams):
        monkeypatch.setattr(place, "_BATCH", 32)
    texts, names = moods(150)
    given = names.astype(object)
    given[4] = "bad" if given[4] != "bad" else "none"
    pairs = label_errors([column(["x"] * 150), column(texts)], given, seed=0)
    assert set(np.flatnonzero(pairs.is_likely_N)) == {4}
    monkeypatch.setattr(ngrams, "_MOST_HELD", 0)
    again = label_errors([column(["x"] * 150), column(texts)], given, seed=0)
    assert (again.score_N == pairs.score_N).all()
    numbers = [[float(name == "good"), float(name == "bad")] for name in names]
    assert set(np.flatnonzero(label_errors([column(numbers)], given, seed=0).is_likely_N)) == {4}


@pytest.mark.parametrize("labels", [["a"] * 6, ["a", "a", "a", "a", "a", "b"], [None] * 6, ["a", "b", "c", "d", "e", "f"]])
def test_too_few_classes_cannot_be_judged(labels: list[str | None]):
    assert (
        label_errors(
            [column(["one", "two", "three", "four", "five", "six"])], pa.chunked_array([pa.array(labels, pa.string())]), seed=0
        )
        is None
    )


def test_odd_texts_do_no_harm():
    found = label_errors([column(["", "  ", "😀", "好好", "\x00", "x" * 5000] * 5)], column(["a", "b", "c"] * 10), seed=0)
    assert np.isfinite(found.score_N).all() and ((found.score_N >= 0) & (found.score_N <= 1)).all()
