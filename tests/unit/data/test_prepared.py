"""The cache of prepared rows: built once, whole or not at all, and rows come back as they were written."""

import errno
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmtune.data import prepared
from llmtune.data.prepared import Split, open_or_build, write_split
from llmtune.errors import DataError, ResourceError

ROWS = [
    {"input_ids": [1, 2, 3], "text": "eins", "target": 0.5, "label": 0},
    {"input_ids": [], "text": "", "target": -1.0, "label": 1},
    {"input_ids": [70_000], "text": "你好 é\0", "target": 1e30, "label": 2},
    {"input_ids": [4, 5], "text": "x" * 100, "target": 0.0, "label": 3},
]


def columns(rows):
    return {name: [row[name] for row in rows] for name in sorted(rows[0])}


def plain(row):
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}


class Builder:
    """Writes ROWS and a tokenizer, and counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, directory: Path):
        self.calls += 1
        write_split(directory, "test", [columns(ROWS[:1])])
        write_split(directory, "train", [columns(ROWS)])
        (directory / "tokenizer").mkdir()
        (directory / "tokenizer" / "tokenizer.json").write_text("{}")
        return {"facts": [1, "é"]}


def test_the_second_use_builds_nothing(tmp_path):
    build = Builder()
    first = open_or_build({"a": 1}, build, cache_dir=tmp_path / "cache")
    again = open_or_build({"a": 1}, build, cache_dir=tmp_path / "cache")
    assert build.calls == 1
    assert first.directory == again.directory and first.meta == again.meta == {"facts": [1, "é"]}
    assert list(again.splits) == ["train", "test"]
    assert [plain(row) for row in again.splits["train"].rows(range(4))] == ROWS
    assert (again.directory / "tokenizer" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    "other", [{"a": 2, "b": [1]}, {"a": 1, "b": [2]}, {"a": 1}, {"a": "1", "b": [1]}, {"a": 1, "b": [1], "c": None}]
)
def test_another_key_is_another_entry(tmp_path, other):
    build = Builder()
    directories = {open_or_build(key, build, cache_dir=tmp_path).directory for key in ({"a": 1, "b": [1]}, other)}
    assert build.calls == len(directories) == 2


def test_the_order_of_the_key_is_nothing(tmp_path):
    build = Builder()
    open_or_build({"a": 1, "b": 2}, build, cache_dir=tmp_path)
    open_or_build({"b": 2, "a": 1}, build, cache_dir=tmp_path)
    assert build.calls == 1


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def blank(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


DAMAGE = {
    "truncated split": ("train.arrow", truncate),
    "longer split": ("test.arrow", lengthen),
    "blank split": ("train.arrow", blank),
    "missing split": ("test.arrow", Path.unlink),
    "cut tokenizer": ("tokenizer/tokenizer.json", lambda path: os.truncate(path, 1)),
    "missing tokenizer": ("tokenizer/tokenizer.json", Path.unlink),
    "missing facts": ("meta.json", Path.unlink),
    "cut facts": ("meta.json", truncate),
    "empty facts": ("meta.json", lambda path: path.write_text("")),
    "facts of another kind": ("meta.json", lambda path: path.write_text("[1]")),
    "another format": ("meta.json", lambda path: path.write_text('{"format": 999, "files": {}}')),
    "no files": ("meta.json", lambda path: path.write_text('{"format": 1, "files": null}')),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_built_again_with_a_notice(tmp_path, capsys, name):
    build = Builder()
    entry = open_or_build({}, build, cache_dir=tmp_path).directory
    file, damage = DAMAGE[name]
    damage(entry / file)
    capsys.readouterr()
    again = open_or_build({}, build, cache_dir=tmp_path)
    assert build.calls == 2 and [plain(row) for row in again.splits["train"].rows(range(4))] == ROWS
    said = capsys.readouterr().err
    assert str(entry) in said and "is damaged" in said and said.count("\n") == 1
    assert os.listdir(tmp_path) == [entry.name]
    open_or_build({}, build, cache_dir=tmp_path)
    assert build.calls == 2 and capsys.readouterr().err == ""


def test_a_file_where_the_entry_should_be_gives_way(tmp_path):
    build = Builder()
    entry = open_or_build({}, build, cache_dir=tmp_path / "one").directory
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / entry.name).write_text("in the way")
    assert len(open_or_build({}, build, cache_dir=tmp_path / "two").splits["train"]) == 4


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def build(directory):
        write_split(directory, "train", [columns(ROWS)])
        raise DataError("bad row")

    with pytest.raises(DataError, match="bad row"):
        open_or_build({}, build, cache_dir=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("where", ["build", "fsync", "rename", "mkdir"])
def test_a_disk_that_refuses(tmp_path, monkeypatch, where, number):
    def refuse(*args, **options):
        raise OSError(number, os.strerror(number), "some/file")

    build = Builder()
    targets = {"fsync": "os.fsync", "rename": "pathlib.Path.rename", "mkdir": "pathlib.Path.mkdir"}
    with monkeypatch.context() as patch:
        if where in targets:
            patch.setattr(targets[where], refuse)
        with pytest.raises(ResourceError) as caught:
            open_or_build({}, refuse if where == "build" else build, cache_dir=tmp_path / "cache")
    assert caught.value.exit_code == 5
    assert os.strerror(number) in caught.value.message and "LLMTUNE_CACHE" in caught.value.remedy
    assert caught.value.where == "some/file"
    assert not list((tmp_path / "cache").glob("*"))
    assert len(open_or_build({}, build, cache_dir=tmp_path / "cache").splits["train"]) == 4


def test_a_full_disk_in_the_midst_of_a_split(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def build(directory):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
        try:
            write_split(directory, "train", (columns(ROWS) for _ in range(100)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return {}

    with pytest.raises(ResourceError, match="cannot be written"):
        open_or_build({}, build, cache_dir=tmp_path)
    assert os.listdir(tmp_path) == []


def test_old_leftovers_of_killed_builds_go_and_new_ones_stay(tmp_path):
    for name, age in ((".tmp-old", 2 * 86400), (".trash-old", 2 * 86400), (".tmp-new", 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.arrow").write_bytes(b"x")
        for path in (tmp_path / name / "train.arrow", tmp_path / name):
            os.utime(path, (time.time() - age,) * 2)
    entry = open_or_build({}, Builder(), cache_dir=tmp_path).directory
    assert sorted(os.listdir(tmp_path)) == [".tmp-new", entry.name]


def test_a_leftover_that_vanishes_while_it_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / ".tmp-other").mkdir()
    real = Path.glob

    def glob(self, pattern):
        found = list(real(self, pattern))
        for path in found:
            path.rmdir()
        return found

    monkeypatch.setattr(Path, "glob", glob)
    assert len(open_or_build({}, Builder(), cache_dir=tmp_path).splits["train"]) == 4


def _build_in_process(cache_dir: Path, results, barrier) -> None:
    def build(directory: Path):
        barrier.wait(timeout=30)  # all are building at the same time
        return Builder()(directory)

    ready = open_or_build({}, build, cache_dir=cache_dir)
    results.put((str(ready.directory), len(ready.splits["train"])))


def test_several_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results, barrier = context.Queue(), context.Barrier(3)
    processes = [context.Process(target=_build_in_process, args=(tmp_path, results, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {results.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(found) == 1 and os.listdir(tmp_path) == [Path(found.pop()[0]).name]


def test_many_repair_one_damaged_entry(tmp_path):
    entry = open_or_build({}, Builder(), cache_dir=tmp_path).directory
    truncate(entry / "train.arrow")
    failures = []

    def use():
        try:
            for _ in range(5):
                assert len(open_or_build({}, Builder(), cache_dir=tmp_path).splits["train"]) == 4
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and os.listdir(tmp_path) == [entry.name]


def split_of(tmp_path, chunks) -> Split:
    write_split(tmp_path, "train", chunks)
    return Split(tmp_path / "train.arrow")


ROW = st.fixed_dictionaries(
    {
        "input_ids": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5),
        "features": st.lists(st.floats(allow_nan=False), min_size=2, max_size=2),
        "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "target": st.floats(allow_nan=False),
        "label": st.integers(-(2**63), 2**63 - 1),
    }
)


@settings(max_examples=40)
@given(chunks=st.lists(st.lists(ROW, min_size=1, max_size=4), min_size=1, max_size=4), data=st.data())
def test_rows_are_what_was_written(tmp_path_factory, chunks, data):
    split = split_of(tmp_path_factory.mktemp("split"), map(columns, chunks))
    rows = [row for chunk in chunks for row in chunk]
    assert len(split) == split.num_rows == len(rows)
    indices = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10))
    assert [plain(row) for row in split.rows(indices)] == [rows[i] for i in indices]
    assert split.lengths.tolist() == [len(row["input_ids"]) for row in rows] and split.lengths.dtype == np.int32


def test_tokens_of_all_rows_without_pandas(tmp_path):
    """Whose import would take longer than all else that training does with the rows before its first step."""
    empty = {name: [] for name in ROWS[0]}
    split = split_of(tmp_path, [columns(ROWS[:2]), empty, columns(ROWS[2:])])
    pieces = list(split.items("input_ids"))
    assert np.concatenate(pieces).tolist() == [1, 2, 3, 70_000, 4, 5]
    assert all(piece.dtype == np.int32 and not piece.flags.writeable for piece in pieces)
    code = f"""
import sys
from llmtune.data.prepared import Split
assert len(list(Split({str(tmp_path / "train.arrow")!r}).items("input_ids"))) == {len(pieces)}
sys.exit("pandas" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


def test_chunks_without_rows_are_nothing(tmp_path):
    empty = {name: [] for name in ROWS[0]}
    split = split_of(tmp_path, [empty, columns(ROWS[:2]), empty, columns(ROWS[2:])])
    assert [plain(row) for row in split.rows(range(4))] == ROWS


@pytest.mark.parametrize("chunks", [[], [{"input_ids": [], "text": []}]])
def test_a_split_without_rows(tmp_path, chunks):
    split = split_of(tmp_path, chunks)
    assert len(split) == 0 and split.rows([]) == [] and split.lengths.tolist() == []


def test_lists_that_are_all_empty(tmp_path):
    split = split_of(tmp_path, [{"input_ids": [[], []], "text": ["", ""]}])
    assert [plain(row) for row in split.rows([1, 0])] == [{"input_ids": [], "text": ""}] * 2
    assert split.row(0)["input_ids"].dtype == np.int32


def test_rows_without_tokens_have_length_one(tmp_path):
    split = split_of(tmp_path, [{"features": [[1.0], [2.0]], "target": [1.0, 2.0]}])
    assert split.lengths.tolist() == [1, 1]
    assert split.row(1)["features"].dtype == np.float64


def test_arrays_are_views_that_cannot_be_written(tmp_path):
    split = split_of(tmp_path, [{"input_ids": [np.array([1, 2], np.int32)]}])
    with pytest.raises(ValueError):
        split.row(0)["input_ids"][0] = 5


def test_a_split_travels_as_its_path(tmp_path):
    split = split_of(tmp_path, [columns(ROWS * 1000)])
    split.rows([0])
    sent = pickle.dumps(split)
    assert len(sent) < 1000
    assert [plain(row) for row in pickle.loads(sent).rows([3999, 0])] == [ROWS[3], ROWS[0]]


def test_numbers_beside_the_rows_are_told_with_them(tmp_path):
    write_split(tmp_path, "train", [columns(ROWS)])
    split = Split(tmp_path / "train.arrow")
    more = pickle.loads(pickle.dumps(split.with_numbers({"reference": np.array([0.5, 1.5, 2.5, 3.5])})))
    assert [row["reference"] for row in more.rows([3, 0])] == [3.5, 0.5]
    assert plain(more.row(2)) == {**plain(split.row(2)), "reference": 2.5}
    assert more.names == split.names and more.lengths.tolist() == split.lengths.tolist()


def test_missing_values_are_a_bug_of_ours(tmp_path):
    with pytest.raises(AssertionError, match="text"):
        split_of(tmp_path, [{"text": ["a", None]}])


def test_nothing_outside_the_cache_is_touched(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".tmp-mine").mkdir()
    os.utime(tmp_path / "other" / ".tmp-mine", (0, 0))
    open_or_build({}, Builder(), cache_dir=tmp_path / "cache")
    assert (tmp_path / "other" / ".tmp-mine").is_dir()
    assert prepared.META in os.listdir(next((tmp_path / "cache").iterdir()))
