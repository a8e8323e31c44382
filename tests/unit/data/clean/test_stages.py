"""Cleaning of tables: which rows stay, and what the account tells of the others."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from llmtune.data.accounting import DROPPED, Ledger, table_of
from llmtune.data.clean import stages
from llmtune.data.spool import Spool
from llmtune.errors import DataError


def table(rows: list[tuple], *, file: str = "train.csv") -> pa.Table:
    """Rows of a text and a label, or of two texts and a label."""
    names = ["text", "label"] if len(rows[0]) == 2 else ["text", "text_pair", "label"]
    columns = {name: pa.array(values, pa.string()) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    return pa.table({**columns, "file": [file] * len(rows), "row": range(2, len(rows) + 2)})


class Cleaned:
    """What comes out, and what is told."""

    def __init__(self, tables, clean, directory: Path, *, limit: int = 1 << 20):
        self.ledger = Ledger(directory)
        spool = Spool(directory, limit=limit)
        given = stages.before_split(dict(tables), clean, ledger=self.ledger, spool=spool)
        self.tables = stages.after_split(given, clean, seed=0, ledger=self.ledger, spool=spool)
        file = directory / DROPPED
        self.dropped = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def texts(self, split: str = "train") -> list[str]:
        return self.tables[split]["text"].to_pylist()

    def entry(self, stage: str, split: str = "train") -> dict:
        return next(entry for entry in self.ledger.account[split] if entry["stage"] == stage)


@pytest.fixture
def clean(cleaners, tmp_path):
    """`clean({"train": rows}, "html", length={"min": 3})`"""

    def make(splits, *options, limit=1 << 20, **changed):
        tables = {name: table(rows, file=f"{name}.csv") for name, rows in splits.items()}
        return Cleaned(tables, cleaners(*options, **changed), tmp_path, limit=limit)

    return make


def test_texts_of_all_splits_change(clean):
    found = clean({"train": [("a<br/>b", "x"), ("c", "y")], "test": [(" d  e", "x")]}, "html", "whitespace")
    assert (found.texts(), found.texts("test")) == (["a b", "c"], ["d e"])
    assert found.ledger.account == {
        "train": [
            {"stage": "clean.html", "rows_in": 2, "rows_out": 2, "changed": 1},
            {"stage": "clean.whitespace", "rows_in": 2, "rows_out": 2},
        ],
        "test": [
            {"stage": "clean.html", "rows_in": 1, "rows_out": 1},
            {"stage": "clean.whitespace", "rows_in": 1, "rows_out": 1, "changed": 1},
        ],
    }
    assert not found.dropped


def test_both_texts_of_a_pair_change(clean):
    found = clean({"train": [("a  b", "c  d", "x"), ("e", "f  g", "y"), ("h", "i", "y")]}, "whitespace")
    assert found.tables["train"]["text_pair"].to_pylist() == ["c d", "f g", "i"]
    assert found.entry("clean.whitespace")["changed"] == 2


def test_large_tables_lie_on_the_disk(clean):
    rows = [(f"text  {i % 22_000}", "x") for i in range(23_000)]
    small, large = (clean({"train": rows}, "whitespace", "duplicates", limit=limit) for limit in (1 << 30, 1000))
    assert small.texts() == large.texts() == [f"text {i}" for i in range(22_000)]


def test_length(clean):
    rows = [("", "x"), ("好", "x"), ("好看", "x"), ("one two three", "x"), (None, "x")]
    found = clean({"train": rows}, length={"min": 1, "max": 2})
    assert found.texts() == ["好", "好看"]
    assert found.entry("clean.length")["left_out"] == {"fewer than 1 characters": 2, "more than 2 characters": 1}
    assert clean({"train": rows}, length={"unit": "words", "min": 2, "max": None}).texts() == ["好看", "one two three"]


def test_either_text_of_a_pair_can_be_too_short(clean):
    assert clean({"train": [("a", "", "x"), ("", "b", "x"), ("c", "d", "x")]}, "length").texts() == ["c"]


def test_duplicates_of_each_given_split(clean):
    found = clean({"train": [("a", "x"), ("b", "y"), ("a", "y"), ("A", "x")], "test": [("a", "x"), ("a", "x")]}, "duplicates")
    assert (found.texts(), found.texts("test")) == (["a", "b", "A"], ["a"])
    assert found.dropped == [
        {
            "split": "train", "stage": "clean.duplicates", "action": "drop", "reason": "duplicate", "detail": "train.csv:2",
            "file": "train.csv", "row": 4, "label": "y", "text": "a",
        },
        {
            "split": "test", "stage": "clean.duplicates", "action": "drop", "reason": "duplicate", "detail": "test.csv:2",
            "file": "test.csv", "row": 3, "label": "x", "text": "a",
        },
    ]  # fmt: skip
    assert found.entry("clean.duplicates")["examples"] == [
        {"row": "train.csv:4", "reason": "duplicate", "detail": "train.csv:2", "label": "y", "text": "a"}
    ]


CONTRADICTING = [("a", "x"), ("b", "x"), ("a", "x"), ("a", "y"), ("b", "x"), ("a", "y")]


@pytest.mark.parametrize(
    ("contradictions", "rows"),
    [("first", [("a", "x"), ("b", "x")]), ("drop", [("b", "x")]), ("keep", [("a", "x"), ("b", "x"), ("a", "y")])],
)
def test_contradicting_labels(clean, contradictions, rows):
    found = clean({"train": CONTRADICTING}, duplicates={"contradictions": contradictions})
    kept = found.tables["train"]
    assert list(zip(kept["text"].to_pylist(), kept["label"].to_pylist(), strict=True)) == rows
    reasons = found.entry("clean.duplicates")["left_out"]
    both = {"duplicate": 1, "duplicate, unlike labels": 4}
    assert reasons == (both if contradictions == "drop" else {"duplicate": 6 - len(rows)})


def test_near_duplicates(clean):
    text = "房间很干净，服务员的态度也非常好，离地铁站只有五分钟的路程，下次还会再来住的。"
    rows = [(text, "x"), ("交通不便", "y"), (text + "推荐！", "x")]
    found = clean({"train": rows}, near_duplicates={"shingle_size": 3})
    assert found.texts() == [text, "交通不便"]
    assert found.entry("clean.near_duplicates")["left_out"] == {"near duplicate": 1}


def test_flagged_rows_stay_and_are_counted(clean):
    flag = {"action": "flag"}
    found = clean({"train": [("a", "x"), ("a", "x"), ("b", "x")]}, duplicates=flag, length={"min": 5, **flag})
    assert found.texts() == ["a", "a", "b"]
    entry = found.entry("clean.duplicates")
    assert (entry["rows_out"], entry["flagged"]) == (3, {"duplicate": 1}) and "left_out" not in entry
    assert [row["action"] for row in found.dropped] == ["flag"] * 4


def test_leaks_go_from_the_train_rows_alone(clean):
    splits = {
        "train": [("a", "x"), ("b", "x"), ("c", "y"), ("", "y")],
        "validation": [("b", "y"), ("", "x")],
        "test": [("a", "x"), ("b", "x"), ("d", "x")],
    }
    found = clean(splits, "leaks")
    assert (found.texts(), found.texts("validation"), found.texts("test")) == (["c", ""], ["b", ""], ["a", "b", "d"])
    assert found.entry("clean.leaks")["left_out"] == {"also in validation": 1, "also in test": 1}
    assert [(row["row"], row["detail"]) for row in found.dropped] == [(2, "test.csv:2"), (3, "validation.csv:2")]


def test_near_leaks(clean):
    text = "one of the very best films that were made in the last ten years, without any doubt"
    found = clean({"train": [(text.upper() + "!", "x"), ("c", "y")], "test": [(text, "x")]}, "near_leaks")
    assert found.texts() == ["c"]
    assert found.entry("clean.near_leaks")["left_out"] == {"nearly in test": 1}


def test_mislabelled_rows_of_train_are_left_out(clean):
    rng = np.random.default_rng(0)
    words = {"good": ["good", "great", "superb"], "bad": ["bad", "awful", "dull"]}
    rows = [(" ".join(rng.choice([*words[label], "film", "plot"], 8)), label) for label in ("good", "bad") * 150]
    rows[10] = ("good great superb great good great", "bad")
    found = clean({"train": rows, "test": rows[10:11]}, "mislabelled")
    gone = [row for row in found.dropped if row["row"] == 12]
    assert gone and gone[0]["reason"] == "likely mislabelled" and gone[0]["detail"] == "rather 'good'"
    assert found.tables["train"].num_rows > 290 and found.tables["test"].num_rows == 1


@pytest.mark.parametrize("rows", [[("a", "x")], [("a", "x"), ("b", "x")]])
def test_few_rows(clean, rows):
    everything = ["unicode", "html", "urls", "control", "whitespace", "length", "duplicates", "near_duplicates", "mislabelled"]
    assert clean({"train": rows}, *everything).texts() == [row[0] for row in rows]


def test_no_row_is_left(clean):
    with pytest.raises(DataError, match="clean.length leaves no train rows: 2 fewer than 9 characters") as caught:
        clean({"train": [("a", "x"), ("b", "x")]}, length={"min": 9})
    assert "clean.length.action=flag" in caught.value.remedy


def test_the_table_has_a_line_for_each_stage_and_a_column_for_each_split(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.enter_read("train", rows=1200, allowed=1100, taken=1000)
    rows = pa.table({"text": ["a"] * 1000})
    ledger.enter_split({"train": rows}, {"train": rows[:900], "test": rows[900:]})
    ledger.enter("train", "tokenized", rows_in=900, rows_out=900, truncated=12)
    ledger.enter("test", "tokenized", rows_in=100, rows_out=100, truncated=0)
    assert table_of(ledger.account) == (
        ["stage", "train", "test"],
        [
            ["read", "1,000 (-100 data.where, -100 data.max_rows)", ""],
            ["split", "900 (-100 for test)", "100"],
            ["tokenized", "900 (12 truncated)", "100"],
        ],
    )
