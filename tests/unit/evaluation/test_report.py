"""The report holds what was found, runs nothing, fetches nothing, and copes with whatever the data hold."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from llmtune.evaluation import confusion, metrics, plots, report
from llmtune.evaluation.plots import Series
from llmtune.evaluation.report import Example, Scatter
from llmtune.evaluation.tally import Tally
from llmtune.tasks.base import Scores

EVIL = "<script>alert('1')</script>\"&"
VOID = {"meta"}


class Page(HTMLParser):
    """Text and tags of a page; every tag must be closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.attributes, self._open = [], [], [], []
        self.feed(html)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def page(tmp_path, **changes):
    given = {"title": "classification on test", "facts": [("rows", "3")], "metrics": {"loss": 0.5}, "history": [], **changes}
    report.write(tmp_path / "report.html", **given)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def classified(num_classes, num_rows=300, names=None):
    rng = np.random.default_rng(0)
    references, predictions = rng.integers(0, num_classes, (2, num_rows))
    names = names or [f"class{i}" for i in range(num_classes)]
    counted, ones = Tally(), np.ones(num_rows)
    counted.add(Scores(np.arange(num_rows), ones, ones, {"reference": references, "prediction": predictions}))
    return metrics.compute("classification", counted, label_names=names)


def history(num_steps):
    steps = [{"event": "step", "step": i, "loss": 1 / i, "lr": 1e-5, "grad_norm": 1.0} for i in range(1, num_steps + 1)]
    return [*steps, {"event": "evaluation", "step": num_steps, "metrics": {"loss": 0.25, "accuracy": 0.75, "mcc": None}}]


def test_it_tells_metrics_classes_mistakes_and_curves(tmp_path):
    mistakes = [Example(("a fine film", "second"), "positive", "negative", "98.7%")]
    found = page(tmp_path, metrics=classified(2, names=["negative", "positive"]), history=history(100), examples=mistakes)
    for heading in ("Metrics", "Confusion matrix", "Classes", "Surest mistakes", "Training"):
        assert heading in found.texts
    for text in ("a fine film", "second", "98.7%", "accuracy", "F1 (macro)", "MCC"):
        assert text in found.texts
    for picture in ("Loss", "Validation", "Learning rate", "Gradient norm"):
        assert ("aria-label", picture) in found.attributes
    assert "Most frequent mix-ups" not in found.texts


def test_nothing_runs_and_nothing_is_fetched(tmp_path):
    scores, mistakes = classified(3, names=[EVIL, "a", "b"]), [Example((EVIL,), EVIL, EVIL, EVIL)]
    found = page(tmp_path, title=EVIL, facts=[(EVIL, EVIL)], metrics=scores, history=history(5), examples=mistakes)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(found.tags)
    assert not {"src", "href", "onclick", "action"} & {name for name, _ in found.attributes}
    assert found.texts.count(EVIL) >= 8
    html = (tmp_path / "report.html").read_text()
    assert not re.search("<script|https?:|url\\(|@import", html)
    assert "default-src 'none'" in html


def test_every_task_without_history_and_with_undefined_metrics(tmp_path):
    assert "–" in page(tmp_path, metrics={"loss": 800.0, "perplexity": None}).texts
    assert "Training" not in page(tmp_path, metrics={"loss": None, "accuracy": None}).texts
    undefined = {"mse": None, "loss": None, "mae": None, "r2": None, "pearson": None, "spearman": None}
    found = page(tmp_path, metrics=undefined, scatter=Scatter([1.0], [float("nan")]))
    assert "svg" not in found.tags and "Predictions" not in found.texts
    assert page(tmp_path, metrics=undefined, scatter=Scatter([1.0], [float("nan")], [0.5], "x")).tags.count("circle") == 1


@pytest.mark.parametrize("num_classes", [2, 12, 13, 77, 121])
def test_a_matrix_of_any_size(tmp_path, num_classes):
    scores = classified(num_classes, num_rows=3 * num_classes)
    found = page(tmp_path, metrics=scores)
    counts = np.array(scores["confusion_matrix"])
    has_matrix = any(name == "class" and "matrix " in value for name, value in found.attributes)
    assert has_matrix == (num_classes <= confusion.MOST_CLASSES)
    told = [v for k, v in found.attributes if k == "title" and v and "→" in v]
    assert len(told) == ((counts > 0).sum() if has_matrix else 0)
    assert (tmp_path / "report.html").stat().st_size < 700_000


def test_the_matrix_shows_counts_and_shares_of_the_row():
    cells = re.findall(r'<td class="(\w+)[^>]*><b>(\d+)</b><small>([\d.]+%)', confusion.matrix([[3, 1], [2, 2]], ["a", "b"]))
    assert cells == [("right", "3", "75.0%"), ("wrong", "1", "25.0%"), ("wrong", "2", "50.0%"), ("right", "2", "50.0%")]


def test_the_commonest_mixups_come_first():
    found = confusion.mixups([[5, 1, 0], [4, 1, 2], [0, 0, 0]], ["a", "b", "c"])
    assert found == [("b", "a", 4, 4 / 7), ("b", "c", 2, 2 / 7), ("a", "b", 1, 1 / 6)]
    assert confusion.mixups([[5, 0], [0, 3]], ["a", "b"]) == []


def test_the_worst_class_comes_first_and_the_absent_one_last(tmp_path):
    nothing = {"precision": None, "recall": None, "f1": None, "support": 0}
    per_class = {"absent": nothing, "good": {**nothing, "f1": 0.9}, "poor": {**nothing, "f1": 0.1}}
    texts = page(tmp_path, metrics={"per_class": per_class, "confusion_matrix": [[0] * 3] * 3}).texts
    texts = texts[texts.index("Classes") :]
    assert texts.index("poor") < texts.index("good") < texts.index("absent")


def test_long_texts_are_folded_and_cut(tmp_path):
    found = page(tmp_path, examples=[Example(("word " * 100,), "a", "b", "1"), Example(("x" * 1_000_000,), "a", "b", "1")])
    assert found.tags.count("details") == 2
    assert "980,000 more characters" in found.text
    assert (tmp_path / "report.html").stat().st_size < 60_000


def test_a_regression_has_dots_and_the_line_of_a_single_feature(tmp_path):
    x = np.linspace(0, 1, 10_000)
    scatter = Scatter(x.tolist(), (x**2).tolist(), x[::-1].tolist(), f"x{EVIL}")
    found = page(tmp_path, metrics={"mse": 1.0}, scatter=scatter, examples=[Example(("x = 1",), "2", "3", "1")])
    assert ("aria-label", "Fit") in found.attributes and f"x{EVIL}" in found.texts and "Largest errors" in found.texts
    assert found.tags.count("circle") == 2 * report.MOST_DOTS
    without = page(tmp_path, metrics={"mse": 1.0}, scatter=Scatter([1.0, 2.0], [2.0, 2.0]))
    assert ("aria-label", "Fit") not in without.attributes and without.tags.count("circle") == 2


def positions(svg):
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]


def test_points_are_put_in_proportion():
    (x0, y0), (x1, y1), (x2, y2) = positions(plots.chart("t", [Series("s", [(0, 0), (1, 5), (4, 10)])], x_name="x"))
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25, abs=0.01) and (y1 - y0) / (y2 - y0) == pytest.approx(0.5, abs=0.01)
    assert x2 > x0 and y2 < y0, "upwards is towards 0 in SVG"
    assert x0 >= plots.LEFT and x2 <= plots.WIDTH - plots.RIGHT and y2 >= plots.TOP and y0 <= plots.HEIGHT - plots.BOTTOM


@pytest.mark.parametrize(
    "points",
    [[(1, 0.0)], [(5, 2.0), (5, 2.0)], [(0, 1e-300), (1, 2e-300)], [(0, -1e149), (1, 1e149)], [(0, 1e9), (1, 1e9 + 1e-6)]],
    ids=["one", "equal", "tiny", "huge", "close"],
)
def test_any_finite_points_can_be_drawn(points):
    svg = plots.chart("t", [Series("s", points)], x_name="x")
    assert len(positions(svg)) == len(points) and "nan" not in svg and "inf" not in svg


def test_what_cannot_be_drawn_is_left_out():
    nan, inf = float("nan"), float("inf")
    assert plots.chart("t", [Series("s", [(0, None), (1, nan), (2, inf), (3, 1e300)])], x_name="x") == ""
    assert len(positions(plots.chart("t", [Series("s", [(0, 1.0), (1, nan), (2, 2.0)])], x_name="x"))) == 2


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 10], {"0", "5", "10"}),
        ([0.0, 0.001], {"0.0000", "0.0010"}),
        ([0.0, 3e-5], {"0", "1e-5", "3e-5"}),
        ([0, 4_000_000], {"0", "4e6"}),
    ],
)
def test_ticks_are_round_numbers(values, expected):
    axis = plots._Axis.around(values, start=0, end=300, margin=0.05)
    assert expected <= {label for _, label in axis.ticks()}
    assert all(len(label) <= 8 for _, label in axis.ticks())


def test_steps_have_no_fractions():
    axis = plots._Axis.around([1, 2, 3], start=0, end=2000, margin=0.02)
    assert [label for _, label in axis.ticks()] == ["1", "2", "3"]


def test_thinning_keeps_the_ends():
    assert plots.thin(range(10), 20) == list(range(10))
    thinned = plots.thin(range(10_001), 11)
    assert thinned == list(range(0, 10_001, 1000))


def test_smoothing_is_a_mean_of_what_came_before():
    assert [y for _, y in plots.smooth([(1, 2.0)] * 500)] == pytest.approx([2.0] * 500)
    steps = [(i, float(i >= 500)) for i in range(1000)]
    values = [y for _, y in plots.smooth(steps, share=0.01)]
    assert values[499] == 0 and 0.05 < values[500] < 0.15 and values[600] > 0.99
