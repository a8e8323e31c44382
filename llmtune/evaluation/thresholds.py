"""Where a classifier's decision is moved: a bias for each class's log-probability that is best on the validation rows.

For two classes this is a threshold other than one half. Several labels of a row have a threshold each. N: rows, C: classes
or labels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from llmtune.evaluation.tally import Tally

CHUNK_ROWS = 100_000
MOST_ROUNDS = 10  # over all classes; it ends sooner if none of them has gained
TINY = float(np.finfo(np.float32).tiny)
MOST_TOLD = 6


def find(
    probabilities_NC: np.ndarray, references_N: np.ndarray, *, metric: str | None, label_names: Sequence[str]
) -> dict[str, Any]:
    """The bias that makes a metric largest, JSON-ready; all zero if none is better than that.

    Args:
        probabilities_NC: of the model; may lie on the disk.
        references_N: the classes.
        metric: 'f1_minority', 'f1_macro', or None: the first for two classes, the second for more.
        label_names: in the order of the classes.

    Returns:
        label_bias: one number for each class.
        metric, value, value_without: the metric, with and without the bias.
        rows, rarest_rows: the validation rows, and those of the class that has the fewest.
    """
    num_classes = len(label_names)
    metric = metric or ("f1_minority" if num_classes == 2 else "f1_macro")
    support_C = np.bincount(references_N, minlength=num_classes)
    present = np.flatnonzero(support_C)
    rarest = present[support_C[present].argmin()]
    weights_C = np.where(support_C > 0, 1 / len(present), 0.0)
    if metric == "f1_minority":
        weights_C = np.eye(num_classes)[rarest]
    moved = [rarest] if num_classes == 2 else present[np.argsort(support_C[present], kind="stable")]
    bias_C = _ascend(probabilities_NC, references_N, support_C, weights_C, moved)
    value = _value(metric, probabilities_NC, references_N, bias_C, label_names)
    without = _value(metric, probabilities_NC, references_N, np.zeros(num_classes), label_names)
    if value <= without:
        bias_C, value = np.zeros(num_classes), without
    return {
        "metric": metric,
        "value": value,
        "value_without": without,
        "rows": len(references_N),
        "rarest_rows": int(support_C[rarest]),
        "label_bias": bias_C.tolist(),
    }


def find_each(
    probabilities_NC: np.ndarray, references_NC: np.ndarray, *, threshold: float, label_names: Sequence[str]
) -> dict[str, Any]:
    """The bias of each label's log-odds with which its F1 is largest, JSON-ready; 0 where none is better.

    Args:
        probabilities_NC: of the model; may lie on the disk, as may the other.
        references_NC: whether a row has a label.
        threshold: probability from which on a label is predicted.
        label_names: in the order of the labels.

    Returns:
        As `find` does, the metric being 'f1_macro'; and `cuts`, the probability that each label is predicted from.
    """
    border = float(_log_odds(np.array(threshold)))
    values_C, without_C, bias_C = (np.zeros(len(label_names)) for _ in range(3))
    support_C = np.zeros(len(label_names), dtype=np.int64)
    for label in range(len(label_names)):
        references_N = np.array(references_NC[:, label], dtype=bool)
        odds_N = _log_odds(np.array(probabilities_NC[:, label], dtype=np.float64))
        support_C[label] = references_N.sum()
        bias_C[label], values_C[label], without_C[label] = _best_border(odds_N, references_N, border)
    return {
        "metric": "f1_macro",
        "value": float(values_C.mean()),
        "value_without": float(without_C.mean()),
        "rows": len(references_NC),
        "rarest_rows": int(support_C.min()),
        "label_bias": bias_C.tolist(),
        "cuts": (1 / (1 + np.exp(bias_C - border))).tolist(),
    }


def _best_border(odds_N: np.ndarray, references_N: np.ndarray, border: float) -> tuple[float, float, float]:
    """What to add to a label's log-odds, its F1 then, and its F1 with nothing added."""
    order = np.argsort(-odds_N, kind="stable")
    odds_N, hits_N = odds_N[order], np.cumsum(references_N[order])
    f1_N = 2 * hits_N / (np.arange(1, len(order) + 1) + hits_N[-1])  # of the first rows up to each
    is_predicted_N = odds_N >= border
    without = f1_N[is_predicted_N.sum() - 1] if is_predicted_N.any() else 0.0
    lows_N = np.append(odds_N[1:], odds_N[-1] - 2)
    f1_N = np.where(odds_N > lows_N, f1_N, -1.0)  # rows of equal odds are predicted together
    if f1_N.max() <= without + 1e-12:
        return 0.0, float(without), float(without)
    cuts_N = (odds_N + lows_N) / 2
    best = np.flatnonzero(f1_N >= f1_N.max() - 1e-12)
    cut = cuts_N[best[np.abs(cuts_N[best] - border).argmin()]]
    return float(border - cut), float(f1_N.max()), float(without)


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, TINY)) - np.log(np.maximum(1 - probabilities, TINY))


def told(found: dict[str, Any], label_names: Sequence[str]) -> str:
    """What `find` has found, in words."""
    bias_C = np.array(found["label_bias"])
    gain = f"validation {found['metric']} {found['value_without']:.4f} -> {found['value']:.4f}"
    if not bias_C.any():
        return f"none is better than {'what there was' if 'cuts' in found else 'the most probable class'} ({gain})"
    if len(label_names) == 2 and "cuts" not in found:
        moved = int(np.abs(bias_C).argmax())
        return f"{label_names[moved]} from a probability of {1 / (1 + np.exp(bias_C.sum())):.3g} on ({gain})"
    largest = np.argsort(-np.abs(bias_C), kind="stable")[:MOST_TOLD]
    more = ", ..." if np.count_nonzero(bias_C) > MOST_TOLD else ""
    if "cuts" in found:
        named = ", ".join(f"{label_names[i]} {found['cuts'][i]:.3g}" for i in largest if bias_C[i])
        return f"labels from a probability of: {named}{more} ({gain})"
    named = ", ".join(f"{label_names[i]} {bias_C[i]:+.2f}" for i in largest if bias_C[i])
    return f"added to log-probabilities: {named}{more} ({gain})"


def _ascend(
    probabilities_NC: np.ndarray,
    references_N: np.ndarray,
    support_C: np.ndarray,
    weights_C: np.ndarray,
    moved: Sequence[int],
) -> np.ndarray:
    """One class's bias after another is set to what is best given the others, until no class gains."""
    bias_C, best = np.zeros(len(support_C)), -1.0
    for _ in range(MOST_ROUNDS):
        before = best
        for label in moved:
            gaps_N, rivals_N = _gaps(probabilities_NC, bias_C, label)
            bias_C[label], best = _best_cut(gaps_N, rivals_N, references_N, support_C, weights_C, label, bias_C[label])
        if best - before < 1e-9 or len(moved) == 1:
            break
    return bias_C


def _gaps(probabilities_NC: np.ndarray, bias_C: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """The bias above which each row is given the label, and the label that it has below."""
    gaps, rivals = [], []
    for logs_MC in _logs(probabilities_NC):
        biased_MC = logs_MC + bias_C
        biased_MC[:, label] = -np.inf
        rivals.append(biased_MC.argmax(1))
        gaps.append(biased_MC.max(1) - logs_MC[:, label])
    return np.concatenate(gaps), np.concatenate(rivals)


def _best_cut(
    gaps_N: np.ndarray,
    rivals_N: np.ndarray,
    references_N: np.ndarray,
    support_C: np.ndarray,
    weights_C: np.ndarray,
    label: int,
    now: float,
) -> tuple[float, float]:
    """The bias of a label with the largest weighted sum of F1 over the classes, and that sum.

    Of several equal ones it is the nearest to `now`.
    In the order of their gaps, rows go over from their rival to the label; what that does to the F1 of both adds up.
    """
    order = np.argsort(gaps_N, kind="stable")
    gaps_N, rivals_N, references_N = gaps_N[order], rivals_N[order], references_N[order]
    taken_N = np.arange(1, len(order) + 1)
    hits_N = np.cumsum(references_N == label)
    changes = np.zeros(len(order) + 1)  # of what the rivals' F1 add up to, before the first row and with each row
    by_rival = np.argsort(rivals_N, kind="stable")
    bounds = np.searchsorted(rivals_N[by_rival], np.arange(len(weights_C) + 1))
    for rival in np.flatnonzero((weights_C > 0) & (np.diff(bounds) > 0)):
        rows = by_rival[bounds[rival] : bounds[rival + 1]]
        left = len(rows) - np.arange(len(rows) + 1)
        is_hit = references_N[rows] == rival
        hits = is_hit.sum() - np.concatenate([[0], np.cumsum(is_hit)])
        scores = weights_C[rival] * 2 * hits / (left + support_C[rival])
        changes[0] += scores[0]
        changes[rows + 1] = np.diff(scores)
    sums = np.cumsum(changes)
    sums[1:] += weights_C[label] * 2 * hits_N / (taken_N + support_C[label])
    edges = np.concatenate([[gaps_N[0] - 2], gaps_N, [gaps_N[-1] + 2]])
    lows, highs = edges[:-1], edges[1:]
    is_best = (sums >= sums[lows < highs].max() - 1e-12) & (lows < highs)
    lows, highs = lows[is_best], highs[is_best]
    cuts = np.where((lows < now) & (now < highs), now, (lows + highs) / 2)
    return float(cuts[np.abs(cuts - now).argmin()]), float(sums[is_best].max())


def _value(
    metric: str, probabilities_NC: np.ndarray, references_N: np.ndarray, bias_C: np.ndarray, label_names: Sequence[str]
) -> float:
    from llmtune.evaluation import metrics  # imports `evaluate`, which takes seconds

    predictions_N = np.concatenate([(logs_MC + bias_C).argmax(1) for logs_MC in _logs(probabilities_NC)])
    pairs = Counter(zip(references_N.tolist(), predictions_N.tolist(), strict=True))
    tally = Tally(num_examples=len(references_N), pairs=pairs)
    return metrics.compute("classification", tally, label_names=label_names)[metric]


def _logs(probabilities_NC: np.ndarray) -> Iterator[np.ndarray]:
    """Log-probabilities, float64, some rows at a time."""
    for start in range(0, len(probabilities_NC), CHUNK_ROWS):
        yield np.log(np.maximum(probabilities_NC[start : start + CHUNK_ROWS], TINY), dtype=np.float64)
