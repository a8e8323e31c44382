"""The newest rows are the test, whatever the form of the times; what cannot be read is told with its row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtune.errors import DataError

DAYS = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in range(1, 26)]


def shuffled(values: list[str]) -> list[str]:
    return [values[i] for i in np.random.default_rng(0).permutation(len(values))]


FORMS = {
    "days": DAYS,
    "times of day": [f"{day} 08:30:{i % 60:02d}" for i, day in enumerate(DAYS)],
    "as parquet has them": [f"{day}T00:00:00.000000000" for day in DAYS],
    "zones": [f"{day}T23:00:00{'Z' if i % 2 else '-00:30'}" for i, day in enumerate(DAYS)],
    "numbers": [str(1.5 * i - 100) for i in range(300)],
    "whole numbers": [str(i) for i in range(9_999_999_700, 10**10)],
    "years": [str(1800 + i) for i in range(300)],
    "spaces": [f" {day} " for day in DAYS],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_newest_are_the_test(sides, form):
    times = shuffled(FORMS[form])
    rank = {time: i for i, time in enumerate(FORMS[form])}
    parts = sides("time", {"time": times})
    assert {name: sorted(rank[times[i]] for i in rows) for name, rows in parts.items()} == {
        "train": list(range(240)),
        "validation": list(range(240, 270)),
        "test": list(range(270, 300)),
    }
    assert all(rows == sorted(rows) for rows in parts.values())


def test_a_form_of_ones_own(sides):
    times = shuffled([f"{day[8:]}.{day[5:7]}.{day[:4]}" for day in DAYS])
    parts = sides("time", {"time": times}, time_format="%d.%m.%Y")
    newest = sorted(times, key=lambda time: time.split(".")[::-1])[270:]
    assert sorted(times[i] for i in parts["test"]) == sorted(newest)


@given(
    times=st.lists(st.integers(0, 12), min_size=4, max_size=60),
    validation=st.sampled_from([0.0, 0.1, 0.3]),
    test=st.sampled_from([0.1, 0.5]),
)
def test_rows_of_one_time_stay_together(sides, times, validation, test):
    wanted = 3 if validation else 2
    if len(set(times)) < wanted:
        with pytest.raises(DataError, match="different times"):
            sides("time", {"time": [str(t) for t in times]}, validation_fraction=validation, test_fraction=test)
        return
    parts = sides("time", {"time": [str(t) for t in times]}, validation_fraction=validation, test_fraction=test)
    in_time = [[times[i] for i in parts[name]] for name in ("train", "validation", "test") if name in parts]
    assert len(in_time) == wanted and all(in_time)
    assert all(max(older) < min(newer) for older, newer in zip(in_time, in_time[1:], strict=False))


def test_sizes_are_as_near_as_ties_allow(sides, capsys):
    times = ["1"] * 80 + ["2"] * 8 + ["3"] * 12
    parts = sides("time", {"time": times})
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [80, 8, 12]
    assert "12 rows for test instead of 10" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("times", "changes", "words"),
    [
        (
            ["2024-01-01", "yesterday", "2024-01-03"],
            {},
            ["the time 'yesterday' is no ISO date", "a.csv:3", "split.time_format="],
        ),
        (["2024-01-01", "2024-02-30"], {}, ["'2024-02-30'", "a.csv:3"]),
        (["1", "2", "2024-01-01"], {}, ["is no number, as those before", "a.csv:4"]),
        (["1", "2", "nan"], {}, ["'nan' is no number", "a.csv:4"]),
        (["1", "inf"], {}, ["'inf'", "a.csv:3"]),
        (["1", "", "3"], {}, ["the time is empty", "a.csv:3", "data.where"]),
        ([None, "2", "3"], {}, ["the time is empty", "a.csv:2"]),
        (["1.2.2024", "30.2.2024"], {"time_format": "%d.%m.%Y"}, ["'30.2.2024' does not read as split.time_format", "a.csv:3"]),
        (["5"] * 9, {}, ["1 different times", "one time stay together"]),
    ],
)
def test_times_that_will_not_do(sides, times, changes, words):
    with pytest.raises(DataError) as caught:
        sides("time", {"time": times + times[-1:] * 20}, **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)
