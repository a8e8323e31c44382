"""report.html: one page without scripts and without a network, that shows how good a model is and how it became so."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from llmtune.evaluation import confusion, page, plots
from llmtune.evaluation.generated import Compared
from llmtune.evaluation.page import bar, gallery, section, table, text, tiles
from llmtune.evaluation.plots import Series

FROM_WHICH_SMOOTHED = 60  # logged steps; fewer are drawn as they are
MOST_DOTS = 2000
AVERAGES = ("macro", "weighted", "micro", "samples")
NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "exact_match": "exact match",
    "hamming_loss": "Hamming loss",
    "chosen_reward": "reward of chosen",
    "rejected_reward": "reward of rejected",
    "chosen_log_prob": "log-probability of chosen",
    "rejected_log_prob": "log-probability of rejected",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "mse": "MSE",
    "mae": "MAE",
    "r2": "R²",
    "pearson": "Pearson",
    "spearman": "Spearman",
}
# Validation metrics that share a picture, since they share a scale.
TOGETHER = (
    ("accuracy", "f1", "f1_macro", "exact_match", "mcc"),
    ("r2", "pearson", "spearman"),
    ("mae",),
    ("perplexity",),
    ("margin", "chosen_reward", "rejected_reward"),
)


@dataclass(frozen=True)
class Example:
    """A row that the model got wrong.

    Attributes:
        texts: one or two, or its numbers.
        reference: what it is.
        prediction: what the model says.
        degree: how wrong: the probability of the prediction, the error, the loss, or the margin.
    """

    texts: tuple[str, ...]
    reference: str
    prediction: str
    degree: str


@dataclass(frozen=True)
class Scatter:
    """Predictions of a regression, beside the references; `feature` where each row is one single number."""

    references: Sequence[float]
    predictions: Sequence[float]
    feature: Sequence[float] | None = None
    feature_name: str = ""


def write(
    path: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    metrics: dict[str, Any],
    history: Sequence[dict[str, Any]],
    examples: Sequence[Example] = (),
    compared: Sequence[Compared] = (),
    scatter: Scatter | None = None,
) -> None:
    """Write the page.

    Args:
        path: of the file.
        title: what was evaluated on what.
        facts: name and value of what else one wants to know.
        metrics: of `metrics.compute`.
        history: the events of the run's metrics.jsonl; may be empty.
        examples: the worst mistakes, worst first.
        compared: answers that were written.
        scatter: of a regression.
    """
    per_class, counts_CC = metrics.get("per_class", {}), metrics.get("confusion_matrix", [])
    names, hint = list(per_class), "Coloured by the share of the reference's rows."
    parts = [
        section("Metrics", _tiles(metrics) + _averages(metrics)),
        section("Before and after training", _before(metrics), "Mean scores of the answers that were written."),
        section("Answers", _answers(compared)),
        section("Thresholds", _thresholds(metrics), "Found on validation rows after training."),
        section("Predictions", _scatter(scatter) if scatter is not None else ""),
        section("Confusion matrix", confusion.matrix(counts_CC, names) if counts_CC else "", hint),
        section("Most frequent mix-ups", _mixups(counts_CC, names) if len(counts_CC) > 2 else ""),
        section("Training", _curves(history)),
        section("Classes", _per_class(per_class) if names else "", "The lowest F1 first."),
        section(*_mistakes(examples, has_matrix=bool(counts_CC), has_names=bool(names), is_preference="margin" in metrics)),
    ]
    page.write(path, title=title, facts=facts, parts=parts)


def _tiles(metrics: dict[str, Any]) -> str:
    """All metrics but averages over classes, of which F1 (macro) stands for the others."""
    single = [n for n, v in metrics.items() if not isinstance(v, (dict, list))]
    chosen = [n for n in single if n == "f1_macro" or n == single[0] or not n.endswith(AVERAGES)]
    return tiles([(_name(n), _number(metrics[n])) for n in chosen])


def _averages(metrics: dict[str, Any]) -> str:
    if "f1_macro" not in metrics:
        return ""
    scores = ("precision", "recall", "f1")
    averages = [average for average in AVERAGES if f"f1_{average}" in metrics]
    rows = [[average, *(_number(metrics.get(f"{score}_{average}")) for score in scores)] for average in averages]
    return table({"average": "", "precision": "number", "recall": "number", "F1": "number"}, rows)


def _thresholds(metrics: dict[str, Any]) -> str:
    without = metrics.get("without_thresholds", {})
    rows = [[escape(_name(name)), _number(metrics[name]), _number(value)] for name, value in without.items()]
    return table({"metric": "", "with": "number", "without": "number"}, rows) if rows else ""


def _before(metrics: dict[str, Any]) -> str:
    before = metrics.get("answers", {}).get("before", {})
    rows = [[escape(_name(name)), _number(value), _number(metrics[name])] for name, value in before.items()]
    return table({"metric": "", "before": "number", "after": "number"}, rows) if rows else ""


def _answers(compared: Sequence[Compared]) -> str:
    if not compared:
        return ""
    has_before = compared[0].before is not None
    rows = [
        [
            _number(one.scores["rougeL"]),
            text(one.prompt),
            text(one.reference),
            *([text(one.before)] if has_before else []),
            text(one.answer) + ("" if one.finish_reason == "stop" else f"<small>ends by {escape(one.finish_reason)}</small>"),
        ]
        for one in compared
    ]
    columns = {"ROUGE-L": "number", "prompt": "text", "reference": "text", "before training": "text", "answer": "text"}
    if not has_before:
        del columns["before training"]
    return f'<div class="examples">{table(columns, rows)}</div>'


def _mixups(counts_CC: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    found = confusion.mixups(counts_CC, names)
    rows = [
        [escape(reference), escape(prediction), f"{count:,}", bar(f"{share:.1%}", share, "wrong")]
        for reference, prediction, count, share in found
    ]
    return table({"reference": "", "taken for": "", "rows": "number", "of the class": "number"}, rows) if rows else ""


def _per_class(per_class: dict[str, dict[str, Any]]) -> str:
    worst_first = sorted(per_class.items(), key=lambda item: (item[1]["f1"] is None, item[1]["f1"]))
    rows = [
        [
            escape(name),
            _number(row["precision"]),
            _number(row["recall"]),
            bar(_number(row["f1"]), row["f1"] or 0.0, "right"),
            f"{row['support']:,}",
        ]
        for name, row in worst_first
    ]
    return table({"class": "", "precision": "number", "recall": "number", "F1": "number", "rows": "number"}, rows)


def _mistakes(examples: Sequence[Example], *, has_matrix: bool, has_names: bool, is_preference: bool) -> tuple[str, str]:
    """Title and table of the worst mistakes."""
    if has_matrix:
        return "Surest mistakes", _examples(examples, degree="probability", kind="")
    if is_preference:
        return "Pairs the wrong way round", _examples(examples, degree="margin", kind="")
    if has_names:
        return "Mistakes with the largest loss", _examples(examples, degree="loss", kind="")
    return "Largest errors", _examples(examples, degree="error", kind="number")


def _examples(examples: Sequence[Example], *, degree: str, kind: str) -> str:
    if not examples:
        return ""
    rows = [[escape(e.degree), escape(e.prediction), escape(e.reference), "".join(map(text, e.texts))] for e in examples]
    columns = {degree: "number", "prediction": kind, "reference": kind, "input": "text"}
    return f'<div class="examples">{table(columns, rows)}</div>'


def _scatter(scatter: Scatter) -> str:
    pairs = plots.drawable(list(zip(scatter.references, scatter.predictions, strict=True)))
    ends = [f(v for pair in pairs for v in pair) for f in (min, max)] if pairs else []
    line = Series("prediction = reference", [(end, end) for end in ends], look="dashed", colour=2)
    pictures = [
        plots.chart(
            "Prediction against reference",
            [Series("rows", pairs, look="dots"), line],
            x_name="reference",
            y_name="prediction",
            most_points=MOST_DOTS,
        )
    ]
    if scatter.feature is not None:
        known = list(zip(scatter.feature, scatter.references, strict=True))
        fitted = sorted(plots.drawable(list(zip(scatter.feature, scatter.predictions, strict=True))))
        series = [Series("reference", known, look="dots"), Series("prediction", fitted, colour=2)]
        name = scatter.feature_name
        pictures.append(plots.chart("Fit", series, x_name=name, y_name="target", most_points=MOST_DOTS))
    return gallery(pictures)


def _curves(history: Sequence[dict[str, Any]]) -> str:
    def of_steps(name: str) -> list[tuple[int, float]]:
        return plots.drawable([(e["step"], e.get(name)) for e in history if e["event"] == "step"])

    def of_evaluations(name: str) -> list[tuple[int, float]]:
        return plots.drawable([(e["step"], e["metrics"].get(name)) for e in history if e["event"] == "evaluation"])

    loss = of_steps("loss")
    train = [Series("train", loss)]
    if len(loss) >= FROM_WHICH_SMOOTHED:
        train = [Series("train, each step", loss, look="faint"), Series("train, smoothed", plots.smooth(loss))]
    pictures = [plots.chart("Loss", [*train, Series("validation", of_evaluations("loss"), colour=2)], x_name="step")]
    for names in TOGETHER:
        series = [Series(_name(n), of_evaluations(n), colour=i) for i, n in enumerate(names, 1)]
        title = f"Validation {_name(names[0])}" if len(names) == 1 else "Validation"
        pictures.append(plots.chart(title, series, x_name="step"))
    for name, title in (("lr", "Learning rate"), ("grad_norm", "Gradient norm")):
        pictures.append(plots.chart(title, [Series("", of_steps(name), colour=3)], x_name="step"))
    return gallery(pictures)


def _name(metric: str) -> str:
    if metric in NAMES:
        return NAMES[metric]
    name, _, average = metric.partition("_")
    shown = "F1" if name == "f1" else name
    return f"{shown} ({average})" if average else shown


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if 100 <= abs(value) < 1e6:
        return f"{value:,.1f}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 100 else f"{value:.4g}"
