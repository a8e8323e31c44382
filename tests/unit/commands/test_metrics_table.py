"""What `evaluate` and `run` print of a classifier's metrics."""

from pathlib import Path

import pytest

from llmtune.commands.evaluate import MOST_SHOWN, tell_metrics


def told(capsys: pytest.CaptureFixture[str], counts: list[list[int]], names: list[str]) -> list[str]:
    metrics = {"accuracy": 0.5, "per_class": dict.fromkeys(names, {}), "confusion_matrix": counts}
    tell_metrics("evaluated on test", metrics, Path("run"))
    return capsys.readouterr().out.splitlines()


def test_mistakes_stand_beside_the_names_of_their_classes(capsys):
    lines = told(capsys, [[1403, 41], [7, 12]], ["negative", "a name that is far too long"])
    assert lines[2:5] == [
        "  taken for           negative  a name that i...",
        "    negative             1,403                41",
        "    a name that i...         7                12",
    ]


def test_many_classes_are_left_to_the_report(capsys):
    number = MOST_SHOWN + 1
    lines = told(capsys, [[1] * number] * number, [str(i) for i in range(number)])
    assert [line.split()[0] for line in lines[1:]] == ["accuracy", "report"]
