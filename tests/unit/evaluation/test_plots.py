"""Histograms: shares of rows in equal intervals, the longest few in the last one."""

import re

import numpy as np

from llmtune.evaluation import plots


def test_a_histogram_has_an_area_for_each_name_and_a_legend(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "chart", lambda title, series, **axes: drawn.append((series, axes)) or "<svg>")
    values = {"train": np.array([1, 1, 2, 3]), "test": np.array([3, 3])}
    assert plots.histogram("Tokens", values, x_name="tokens") == "<svg>"
    (train, test), axes = drawn[0]
    assert axes == {"x_name": "tokens", "y_name": "share of rows"}
    assert train.points == [(1.0, 0.0), (1.0, 0.5), (2.0, 0.5), (2.0, 0.25), (3.0, 0.25), (3.0, 0.25), (4.0, 0.25), (4.0, 0.0)]
    assert [y for _, y in test.points] == [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert (train.name, train.look, train.colour, test.colour) == ("train", "area", 1, 2)


def test_the_longest_few_are_counted_in_the_last_interval():
    rows = np.concatenate([np.arange(1000) % 100, [1e9]])
    page = plots.histogram("Characters", {"train": rows}, x_name="characters")
    assert (
        page.startswith("<figure>") and "area" in page and max(float(x) for x in re.findall(r">([\d,]+)</text>", page)) <= 110
    )


def test_odd_values():
    assert plots.histogram("x", {"train": np.array([])}, x_name="x") == ""
    assert plots.histogram("x", {"train": np.array([np.nan])}, x_name="x") == ""
    assert "<svg" in plots.histogram("x", {"train": np.array([7])}, x_name="x")
    assert "<svg" in plots.histogram("x", {"train": np.array([0.5, 0.5, np.inf])}, x_name="x")
