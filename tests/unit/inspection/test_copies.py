"""Duplicates, contradictions and leaks, each with its place."""

import pyarrow as pa

from llmtune.data.spool import Spool
from llmtune.inspection.copies import Copies

LONG = "a long and winding sentence about two friends who walk home in the rain"
OTHER = "nothing at all is said here about the weather or about the way home of anyone"


def table(values: list, labels: list[str] | None = None, name: str = "text") -> pa.Table:
    more = {"label": labels} if labels else {}
    return pa.table({name: values, **more, "file": ["f"] * len(values), "row": [i + 2 for i in range(len(values))]})


def copies(tables: dict[str, pa.Table], *, made: tuple[str, ...] = (), has_classes: bool = True) -> Copies:
    return Copies(tables, made=made, has_classes=has_classes, shingle_size=5, spool=Spool())


def told(findings) -> dict[str, int]:
    return {finding.kind: finding.count for finding in findings}


def test_within_a_split():
    rows = [LONG, OTHER, LONG, LONG + "!", "x", "x", "", ""]
    found, clusters = copies({"train": table(rows, ["a", "b", "a", "a", "a", "b", "a", "b"])}).within("train")
    assert told(found) == {"duplicates": 2, "near_duplicates": 1, "contradictions": 2}
    assert found[0].examples[0].place == "f:4" and found[0].examples[0].note == "as f:2"
    assert [(c.size, c.labels) for c in clusters] == [(3, {"a": 3}), (2, {"a": 1, "b": 1})]


def test_near_contradictions_are_told_apart():
    found, _ = copies({"train": table([LONG, LONG + "!", OTHER], ["a", "b", "b"])}).within("train")
    assert told(found) == {"near_duplicates": 1, "near_contradictions": 2}
    found, _ = copies({"train": table([LONG, LONG], ["1", "2"])}, has_classes=False).within("train")
    assert told(found) == {"duplicates": 1}


def test_across_given_splits():
    tables = {"train": table([LONG, OTHER]), "validation": table([LONG, "v"]), "test": table([OTHER + "?", "v"])}
    found = list(copies(tables).across())
    assert [(f.kind, f.split, f.facts["other"], f.count) for f in found] == [
        ("leaks", "validation", "train", 1),
        ("near_leaks", "test", "train", 1),
        ("held_out_twice", "test", "validation", 1),
    ]
    assert found[0].title == "also in train" and found[0].overrides == ["clean=[leaks]"]


def test_splits_of_one_file_are_cleaned_before_it_is_divided():
    found = list(copies({"train": table([LONG]), "test": table([LONG])}, made=("test",)).across())
    assert [(f.kind, f.overrides) for f in found] == [("split_leaks", ["clean=[duplicates]"])]


def test_numbers_are_compared_exactly():
    tables = {
        "train": table([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0]], name="features"),
        "test": table([[3.0, 4.0]], name="features"),
    }
    found = copies(tables, has_classes=False)
    assert told(found.within("train")[0]) == {"same_numbers": 1}
    assert told(found.across()) == {"leaked_numbers": 1}
