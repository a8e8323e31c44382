"""Rows whose label is likely wrong: confident learning (Northcutt, Jiang and Chuang 2021) over out-of-fold probabilities.

The probabilities come from a quick linear model: naive Bayes over hashed n-grams of words and characters, weighted by rarity
and scaled to length one (Rennie et al. 2003), its scores divided by the temperature that makes the given labels likeliest
(Guo et al. 2017). Each row is judged by a model that has not seen it. N: rows, C: classes, D: columns, F: numeric features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from scipy.optimize import minimize_scalar

from llmtune.data.ngrams import WeightedNgrams, spread
from llmtune.randomness import generator

NUM_FOLDS = 5
LARGEST_SCORE = 0.2  # of a label that is likely wrong: the other class is more probable by 0.6 or more
_BATCH = 10_000  # rows at a time
_MOST_WEIGHTS = 1 << 26  # of all models together: many classes share fewer columns
_SURE = 0.9  # a probability that is confident in any case: where classes are told apart with ease, the mean is close to 1
_TOP = 10  # classes of a row that are kept
_SMOOTHING = 0.1

Columns = Sequence[pa.ChunkedArray]


@dataclass(frozen=True)
class LabelErrors:
    """What each row's label looks like to models that have not seen the row.

    Attributes:
        names: of the C classes, sorted.
        given_N: int32, the class of each row, -1 where it has none.
        suggested_N: int32, the likeliest class; -1 where the row has no label.
        score_N: float32 in [0, 1], half of one plus the probability of the row's own class minus that of the likeliest
            other; small where the label is suspicious, 1 where there is none.
        is_likely_N: bool, whether the row is off the diagonal of the confident joint (another class than its own is at least
            as probable as on average for that class's own rows), and its score is below `LARGEST_SCORE`.
        accuracy: share of the labelled rows whose likeliest class is their own.
    """

    names: tuple[str, ...]
    given_N: np.ndarray
    suggested_N: np.ndarray
    score_N: np.ndarray
    is_likely_N: np.ndarray
    accuracy: float


def label_errors(columns: Columns, labels: pa.ChunkedArray | np.ndarray, *, seed: int) -> LabelErrors | None:
    """Judge the labels of a table's rows; None where they cannot be judged: fewer than two classes with two rows each.

    The same rows and seed give the same answer. Give it the rows of one split: they alone judge each other.

    Args:
        columns: one column of texts, two for pairs, or one of numeric features (lists of F numbers); N rows.
        labels: N class names, null where there is none.
        seed: deals the rows of each class into folds.
    """
    names, given_N = _classes(labels)
    known = np.flatnonzero(given_N >= 0)
    if (np.bincount(given_N[known], minlength=1) >= 2).sum() < 2:
        return None
    classes = given_N[known]
    fold_of = _folds(classes, seed=seed)
    columns = [column.take(pa.array(known)) if len(known) < len(given_N) else column for column in columns]
    if pa.types.is_string(columns[0].type):
        own, best, top = _judged_texts(columns, classes, len(names), fold_of)
    else:
        own, best, top = _judged_numbers(columns[0], classes, len(names), fold_of)
    return _answer(names, given_N, known, own, best, top)


@dataclass
class _Top:
    """The likeliest classes of each row: probabilities [N, K], the largest first, and which classes they are."""

    probabilities: np.ndarray
    classes: np.ndarray


def _answer(
    names: tuple[str, ...], given_N: np.ndarray, known: np.ndarray, own: np.ndarray, best_other: np.ndarray, top: _Top
) -> LabelErrors:
    classes, num = given_N[known], len(given_N)
    candidate = _confident_classes(own, classes, top, len(names))
    suggested_N, score_N, is_likely_N = np.full(num, -1, np.int32), np.ones(num, np.float32), np.zeros(num, bool)
    suggested_N[known] = top.classes[:, 0]
    score_N[known] = (1 + own - best_other) / 2
    is_likely_N[known] = (candidate >= 0) & (candidate != classes) & (score_N[known] < LARGEST_SCORE)
    suggested_N[known[is_likely_N[known]]] = candidate[is_likely_N[known]]
    return LabelErrors(names, given_N, suggested_N, score_N, is_likely_N, float((top.classes[:, 0] == classes).mean()))


def _confident_classes(own: np.ndarray, classes: np.ndarray, top: _Top, num_classes: int) -> np.ndarray:
    """The likeliest of those classes that reach their threshold, the mean over the rows labelled so; -1: none does."""
    counts = np.bincount(classes, minlength=num_classes)
    thresholds = np.bincount(classes, own, num_classes) / np.maximum(counts, 1)
    thresholds = np.where(counts > 0, np.minimum(thresholds, _SURE), np.inf)
    reaches = top.probabilities >= thresholds[top.classes]
    first = reaches.argmax(axis=1)
    rows = np.arange(len(first))
    return np.where(reaches[rows, first], top.classes[rows, first], -1)


def _classes(labels: pa.ChunkedArray | np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    labels = labels if isinstance(labels, pa.ChunkedArray) else pa.chunked_array([pa.array(labels)])
    names = sorted(name for name in labels.cast(pa.string()).unique().to_pylist() if name is not None)
    found = pc.index_in(labels.cast(pa.string()), value_set=pa.array(names, pa.string()))
    return tuple(names), pc.fill_null(found, -1).to_numpy().astype(np.int32)


def _folds(classes: np.ndarray, *, seed: int) -> np.ndarray:
    """Which fold each row is of; each class is dealt out evenly."""
    order = generator(seed, "label errors").permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    folds = np.empty(len(classes), np.int8)
    folds[order] = np.arange(len(classes)) % NUM_FOLDS
    return folds


def _judged_texts(columns: Columns, classes: np.ndarray, num_classes: int, fold_of: np.ndarray):
    bits = min(18, int(np.log2(_MOST_WEIGHTS / (NUM_FOLDS * num_classes))))
    rows = WeightedNgrams(columns, bits)
    sums = np.zeros((NUM_FOLDS, 1 << bits, num_classes), np.float32)
    for start, weights in rows:
        here = slice(start, start + weights.shape[0])
        for fold in range(NUM_FOLDS):
            chosen = np.flatnonzero(fold_of[here] == fold)
            ones = np.ones(len(chosen), np.float32)
            is_of = sparse.csr_matrix((ones, (np.arange(len(chosen)), classes[here][chosen])), (len(chosen), num_classes))
            found = (weights[chosen].T @ is_of).tocoo()
            sums[fold, found.row, found.col] += found.data
    total = sums.sum(axis=0)
    for fold in range(NUM_FOLDS):  # in place: sums of the fold become the model of the others
        others = np.maximum(total - sums[fold], 0) + _SMOOTHING
        logs = np.log(others) - np.log(others.sum(axis=0))
        sums[fold] = logs - logs.mean(axis=1, keepdims=True)

    def scores(weights: sparse.csr_matrix, folds: np.ndarray) -> np.ndarray:
        found = np.empty((weights.shape[0], num_classes), np.float32)
        for fold in range(NUM_FOLDS):
            found[folds == fold] = weights[folds == fold] @ sums[fold]
        return found

    sample = spread(len(classes))
    temperature = _temperature(scores(rows.of(sample), fold_of[sample]), classes[sample])

    def probabilities() -> Iterator[np.ndarray]:
        for start, weights in rows:
            yield _softmax(scores(weights, fold_of[start : start + weights.shape[0]]) / temperature)

    return _summed_up(probabilities, classes)


def _judged_numbers(features: pa.ChunkedArray, classes: np.ndarray, num_classes: int, fold_of: np.ndarray):
    from sklearn.linear_model import LogisticRegression

    values_NF = features.combine_chunks().values.to_numpy().reshape(len(classes), -1)
    deviations = values_NF.std(axis=0)
    values_NF = (values_NF - values_NF.mean(axis=0)) / np.where(deviations > 0, deviations, 1)
    found = np.zeros((len(classes), num_classes), np.float32)
    for fold in range(NUM_FOLDS):
        rest, here = fold_of != fold, fold_of == fold
        if len(np.unique(classes[rest])) < 2 or not here.any():
            continue
        model = LogisticRegression(max_iter=200).fit(values_NF[rest], classes[rest])
        found[np.ix_(here, model.classes_)] = model.predict_proba(values_NF[here])

    def probabilities() -> Iterator[np.ndarray]:
        for start in range(0, len(classes), _BATCH):
            yield found[start : start + _BATCH]

    return _summed_up(probabilities, classes)


def _summed_up(probabilities: Callable[[], Iterator[np.ndarray]], classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Top]:
    """Probability of each row's own class and of the likeliest other one, and the top classes."""
    own, best, tops, which, start = [], [], [], [], 0
    for found in probabilities():
        rows, mine = np.arange(len(found)), classes[start : start + len(found)]
        start += len(found)
        order = np.argsort(-found, axis=1, kind="stable")[:, :_TOP].astype(np.int32)
        own.append(found[rows, mine])
        which.append(order)
        tops.append(np.take_along_axis(found, order, axis=1))
        best.append(np.where(order[:, 0] == mine, tops[-1][:, 1], tops[-1][:, 0]))
    return np.concatenate(own), np.concatenate(best), _Top(np.concatenate(tops), np.concatenate(which))


def _temperature(scores: np.ndarray, classes: np.ndarray) -> float:
    """What the scores are divided by so that the classes are as likely as can be."""

    def loss(log_temperature: float) -> float:
        scaled = scores / np.float32(np.exp(log_temperature))
        own = scaled[np.arange(len(classes)), classes]
        highest = scaled.max(axis=1)
        return float((np.log(np.exp(scaled - highest[:, None]).sum(axis=1)) + highest - own).mean(dtype=np.float64))

    return float(np.exp(minimize_scalar(loss, bounds=(-6, 6), method="bounded", options={"xatol": 1e-2}).x))


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
