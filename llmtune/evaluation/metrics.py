"""How right the predictions of a split are. Imports `evaluate`, which takes seconds: import it when evaluation starts.

N: examples, C: classes.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value
from scipy import stats
from sklearn import metrics as sklearn_metrics

from llmtune.config.metrics import METRICS
from llmtune.evaluation.tally import Tally

AVERAGES = ("macro", "micro", "weighted")
OF_ANSWERS = ("chosen_reward", "rejected_reward", "chosen_log_prob", "rejected_log_prob")
TABLES = ("per_class", "confusion_matrix", "without_thresholds")


def compute(
    task_type: str, tally: Tally, *, label_names: Sequence[str] = (), entity_types: Sequence[str] = ()
) -> dict[str, Any]:
    """The metrics of a task, JSON-ready; one that is undefined for these rows, or not finite, is None.

    Args:
        task_type: a key of `METRICS`, whose metrics come first in the result.
        tally: of the split.
        label_names: of a classification, in the order of the class ids. Its result also holds `per_class` (precision,
            recall, f1 and support by name), `confusion_matrix` (rows are references, columns predictions) and, where
            thresholds are moved, `without_thresholds`: the metrics that they change, as they would be. Of a multilabel, whose
            result also holds `per_class`, and `without_thresholds` likewise.
        entity_types: of a tagging; `per_class` is of them.
    """
    found = MeanLoss(keep_in_memory=True).compute(loss_sums=[tally.loss_sum], weights=[tally.num_targets])
    match task_type:
        case "classification":
            found |= _classification(tally.pairs, label_names)
            if tally.unbiased_pairs:
                unbiased = _classification(tally.unbiased_pairs, label_names)
                found["without_thresholds"] = {name: unbiased[name] for name in METRICS[task_type] if name in unbiased}
        case "regression":
            references_N, predictions_N = np.concatenate(tally.numbers, axis=1)
            found |= Regression(keep_in_memory=True).compute(predictions=predictions_N, references=references_N)
        case "multilabel":
            found |= _of_rows(tally, label_names)
            if "unbiased_counts" in tally.sums:
                unbiased = _of_rows(tally, label_names, of="unbiased_")
                found["without_thresholds"] = {name: unbiased[name] for name in METRICS[task_type] if name in unbiased}
        case "tagging":
            found |= _counted(tally.sums["counts"], entity_types, only_occurring=True) | _of_words(tally)
        case "preference":
            found |= _of_pairs(tally)
        case "masked_lm" | "instruction":
            sums = {"num_correct": [tally.num_correct], "weights": [tally.num_targets]}
            found |= TokenAccuracy(keep_in_memory=True).compute(**sums)
    return {name: found[name] for name in (*METRICS[task_type], *TABLES) if name in found}


def _classification(pairs: Counter[tuple[int, int]], label_names: Sequence[str]) -> dict[str, Any]:
    cells = sorted(pairs.items())
    references, predictions = ([pair[side] for pair, _ in cells] for side in (0, 1))
    columns = {"predictions": predictions, "references": references, "counts": [count for _, count in cells]}
    return Classification(keep_in_memory=True).compute(**columns, label_names=label_names)


class Metric(evaluate.Metric):
    """A metric of ours: `columns` are what it is computed from, with their dtypes, and `score` computes it."""

    columns: dict[str, str]
    score: Callable[..., dict[str, Any]]

    def _compute(self, **given: Any) -> dict[str, Any]:
        # The columns come as lists: in numpy format, datasets would round them to float32.
        arrays = {name: np.asarray(given[name], dtype) for name, dtype in self.columns.items()}
        return self.score(**{**given, **arrays})

    def _info(self) -> evaluate.MetricInfo:
        features = Features({name: Value(dtype) for name, dtype in self.columns.items()})
        return evaluate.MetricInfo(description=self.__doc__, citation="", inputs_description="", features=features)

    def _build_data_dir(self) -> str:
        # evaluate would make a folder in the user's cache even for what it keeps in memory.
        return ""


class MeanLoss(Metric):
    """Loss of the mean target, and its exponential."""

    columns = {"loss_sums": "float64", "weights": "float64"}

    def score(self, loss_sums: np.ndarray, weights: np.ndarray) -> dict[str, float | None]:
        loss = _ratio(loss_sums.sum(), weights.sum())
        with np.errstate(over="ignore"):
            perplexity = _finite(np.exp(loss)) if loss is not None else None
        return {"loss": loss, "perplexity": perplexity}


class TokenAccuracy(Metric):
    """Share of the predicted tokens that are right."""

    columns = {"num_correct": "int64", "weights": "float64"}

    def score(self, num_correct: np.ndarray, weights: np.ndarray) -> dict[str, float | None]:
        return {"accuracy": _ratio(num_correct.sum(), weights.sum())}


class Classification(Metric):
    """Accuracy, precision, recall and F1 of each class and averaged, Matthews' correlation, confusion matrix.

    As in scikit-learn, precision of a class that is never predicted and recall of a class without rows count as 0, and
    averages are over the classes that occur as reference or prediction; of the others nothing can be said (None).
    Balanced accuracy is the mean recall of the classes that have rows; F1 of the minority that of the class with the fewest
    of them, the first of several. Each pair of classes comes once, with the number of its rows.
    """

    columns = {"predictions": "int64", "references": "int64", "counts": "int64"}

    def score(
        self, predictions: np.ndarray, references: np.ndarray, counts: np.ndarray, label_names: Sequence[str]
    ) -> dict[str, Any]:
        occurring = np.union1d(references, predictions)
        pairs = {"y_true": references, "y_pred": predictions, "sample_weight": counts}
        with warnings.catch_warnings():
            # scikit-learn wonders about splits with one class, and about those with hardly fewer classes than rows.
            warnings.simplefilter("ignore", UserWarning)
            found: dict[str, Any] = {
                "accuracy": float(sklearn_metrics.accuracy_score(**pairs)),
                "balanced_accuracy": float(sklearn_metrics.balanced_accuracy_score(**pairs)),
                "mcc": float(sklearn_metrics.matthews_corrcoef(**pairs)),
            }
            for average in AVERAGES:
                precision, recall, f1, _ = _scores(**pairs, average=average)
                named = {"precision": precision, "recall": recall, "f1": f1}
                found |= {f"{name}_{average}": float(score) for name, score in named.items()}
            each = _scores(**pairs, average=None, labels=occurring)
            matrix_CC = sklearn_metrics.confusion_matrix(**pairs, labels=np.arange(len(label_names)))
        found["f1_minority"] = float(each[2][np.where(each[3] > 0, each[3], np.inf).argmin()])
        nothing = {"precision": None, "recall": None, "f1": None, "support": 0}
        found["per_class"] = {name: dict(nothing) for name in label_names}
        for label, precision, recall, f1, support in zip(occurring, *each, strict=True):
            found["per_class"][label_names[label]] = {
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
        return {**found, "confusion_matrix": matrix_CC.astype(int).tolist()}


class Counted(Metric):
    """Precision, recall and F1 of each name, and averaged, from how often it was right, predicted and real.

    What would be divided by 0 is 0, as in scikit-learn and seqeval; of a name that never occurs nothing can be said (None).
    With `only_occurring`, averages are over the names that occur (seqeval), else over all (scikit-learn, several labels).
    """

    columns = {"right": "int64", "predicted": "int64", "reference": "int64"}

    def score(
        self, right: np.ndarray, predicted: np.ndarray, reference: np.ndarray, names: Sequence[str], only_occurring: bool
    ) -> dict[str, Any]:
        def scores(right: Any, predicted: Any, reference: Any) -> tuple:
            both = np.asarray(predicted + reference)
            return tuple(right * k / np.maximum(n, 1) for k, n in ((1, predicted), (1, reference), (2, both)))

        kinds = ("precision", "recall", "f1")
        each = scores(right, predicted, reference)
        occurs = (predicted + reference) > 0
        kept = occurs if only_occurring else np.ones_like(occurs)
        support = reference[kept]
        found: dict[str, Any] = {}
        for kind, micro, values in zip(kinds, scores(right.sum(), predicted.sum(), reference.sum()), each, strict=True):
            macro = values[kept].mean() if kept.any() else 0.0
            weighted = (values[kept] * support).sum() / max(support.sum(), 1)
            found |= {kind: float(micro), f"{kind}_micro": float(micro)}
            found |= {f"{kind}_macro": float(macro), f"{kind}_weighted": float(weighted)}
        found["per_class"] = {
            name: {
                **{k: float(v[i]) if occurs[i] else None for k, v in zip(kinds, each, strict=True)},
                "support": int(reference[i]),
            }
            for i, name in enumerate(names)
        }
        return found


def _counted(counts_C3: np.ndarray, names: Sequence[str], *, only_occurring: bool) -> dict[str, Any]:
    columns = dict(zip(("right", "predicted", "reference"), counts_C3.T, strict=True))
    return Counted(keep_in_memory=True).compute(**columns, names=names, only_occurring=only_occurring)


def _of_words(tally: Tally) -> dict[str, float | None]:
    """The share of the words with the right tag."""
    return {"accuracy": _ratio(*tally.sums["words"].tolist())}


def _of_rows(tally: Tally, label_names: Sequence[str], *, of: str = "") -> dict[str, Any]:
    """Besides what is counted: the share of rows with exactly the right labels, of wrong labels, the F1 of the mean row."""
    counts_C3, num_exact, f1_samples = (tally.sums[f"{of}{name}"] for name in ("counts", "num_exact", "f1_samples"))
    right, predicted, reference = counts_C3.sum(0).tolist()
    return {
        **_counted(counts_C3, label_names, only_occurring=False),
        "exact_match": _ratio(int(num_exact), tally.num_examples),
        "hamming_loss": _ratio(predicted + reference - 2 * right, tally.num_examples * len(label_names)),
        "f1_samples": _ratio(float(f1_samples), tally.num_examples),
    }


def _of_pairs(tally: Tally) -> dict[str, float | None]:
    """The share of the pairs whose chosen answer has the larger reward, and the means of rewards and log-probabilities."""
    found = {name: _ratio(float(tally.sums[name]), tally.num_examples) for name in ("right", *OF_ANSWERS)}
    difference = float(tally.sums["chosen_reward"] - tally.sums["rejected_reward"])
    return {"accuracy": found.pop("right"), "margin": _ratio(difference, tally.num_examples), **found}


class Regression(Metric):
    """Mean squared and mean absolute error, R², and the correlations of Pearson and Spearman."""

    columns = {"predictions": "float64", "references": "float64"}

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float | None]:
        if not np.isfinite(predictions).all():
            return dict.fromkeys(("mse", "mae", "r2", "pearson", "spearman"))
        return {
            "mse": float(sklearn_metrics.mean_squared_error(references, predictions)),
            "mae": float(sklearn_metrics.mean_absolute_error(references, predictions)),
            "r2": float(sklearn_metrics.r2_score(references, predictions)) if np.ptp(references) > 0 else None,
            "pearson": _correlation(stats.pearsonr, predictions, references),
            "spearman": _correlation(stats.spearmanr, predictions, references),
        }


def _scores(**given: Any) -> tuple:
    return sklearn_metrics.precision_recall_fscore_support(**given, zero_division=0)


def _correlation(of: Any, predictions: np.ndarray, references: np.ndarray) -> float | None:
    """None where one side is constant, or so nearly that rounding decides."""
    if len(predictions) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", stats.DegenerateDataWarning)
        try:
            return _finite(of(predictions, references).statistic)
        except stats.DegenerateDataWarning:
            return None


def _ratio(total: float, count: float) -> float | None:
    return _finite(total / count) if count else None


def _finite(value: float) -> float | None:
    """JSON knows no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None
