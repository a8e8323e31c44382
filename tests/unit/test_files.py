"""Files and folders that appear whole or not at all."""

import os
import time

import pytest

from llmtune import files
from llmtune.errors import ResourceError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"é": [1, None]})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_folders_of_one_second_have_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "2026-01-02_03-04-05")
    made = [files.new_folder(tmp_path / "runs", lambda folder: (folder / "x").write_text("")) for _ in range(3)]
    assert [path.name for path in made] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05-2", "2026-01-02_03-04-05-3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(path.name for path in made)


def test_a_folder_whose_filling_fails_is_not_there(tmp_path):
    def fill(folder):
        (folder / "x").write_text("")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.new_folder(tmp_path, fill)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ResourceError, match="in the way"):
        files.new_folder(tmp_path / "runs")


def test_leftovers_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path):
    for name in (".tmp-a.4194305", f".tmp-b.{os.getpid()}", ".tmp-c.word", "d.4194305"):
        (tmp_path / name).mkdir()
    files.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".tmp-b.{os.getpid()}", ".tmp-c.word", "d.4194305"]
