"""Tables with groups and times, and the rows of each side."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from llmtune.data.split import split


def table(size: int, **columns: list) -> pa.Table:
    """Rows whose text is their number, in chunks of uneven size."""
    made = pa.table(
        {
            "text": [str(i) for i in range(size)],
            **{name: pa.array(values, pa.string()) for name, values in columns.items()},
            "file": ["a.csv"] * size,
            "row": [i + 2 for i in range(size)],
        }
    )
    return pa.concat_tables([made[: size // 3], made[size // 3 : size // 3 + 1], made[size // 3 + 1 :]])


@pytest.fixture(scope="session")
def sides(section) -> Callable[..., dict[str, list[int]]]:
    """`sides("grouped", {"group": [...]}, validation_fraction=0.2)`: the numbers of the rows of each split."""

    def make(kind: str, columns: dict[str, list], *, seed: int = 0, has_classes: bool = True, **changes: Any):
        needed = {"grouped": {"group_column": "g"}, "time": {"time_column": "t"}}.get(kind, {})
        rows = table(len(next(iter(columns.values()))), **columns)
        parts = split({"train": rows}, section(f"split/{kind}", **needed, **changes), seed=seed, stratify=has_classes)
        assert all(set(part.column_names) <= {"text", "label", "file", "row"} for part in parts.values())
        return {name: [int(text) for text in part["text"].to_pylist()] for name, part in parts.items()}

    return make
