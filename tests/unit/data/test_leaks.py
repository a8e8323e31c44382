"""Rows of which all texts stand in a train row."""

import pyarrow as pa

from llmtune.data.leaks import in_common


def rows(texts, pairs=None) -> pa.Table:
    made = pa.table({"text": pa.array(texts, pa.string())} | ({"text_pair": pa.array(pairs, pa.string())} if pairs else {}))
    return pa.concat_tables([made[:1], made[1:]])


def test_each_row_that_is_held_out_counts():
    held_out = rows(["a", "b", "a", "ü 🙂 文", "", "  ", None, "c"])
    train = rows(["ü 🙂 文", "a", "x", "a", "", "  ", None])
    assert in_common(held_out, train) == 3
    assert in_common(train, rows(["a", "A"])) == 2
    assert in_common(rows(["A"]), train) == 0


def test_a_pair_counts_as_a_pair():
    held_out = rows(["a", "b", "c", None, ""], ["1", "2", "3", "4", None])
    assert in_common(held_out, rows(["a", "b", "x", None], ["1", "3", "2", "4"])) == 2


def test_no_rows():
    empty = pa.table({"text": pa.array([], pa.string())})
    assert in_common(empty, rows(["a"])) == in_common(rows(["a"]), empty) == in_common(rows([" "]), rows([" "])) == 0
