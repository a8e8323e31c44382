"""Says where a key of the composed config was set."""

import os
from pathlib import Path
from typing import Any

from llmtune.config.shipped import shipped
from llmtune.config.store import Library

KeyPath = tuple[str, ...]


class Origins:
    """Looks a key up where it could have been set last: command line, recipe, its parents, option file, primary config."""

    def __init__(self, library: Library, values: dict[str, str], choices: dict[str, list[str]]):
        self._library, self._values, self._choices = library, values, choices

    def find(self, path: KeyPath) -> str | None:
        """`override optimizer.lr=-1`, `recipes/x.yaml:7`, or None for a key that nobody set."""
        for length in range(len(path), 0, -1):
            if place := self._exactly(path[:length]):
                return place
        return None

    def _exactly(self, path: KeyPath) -> str | None:
        if arg := self._values.get(".".join(path)):
            return f"override {arg}"
        for file in self._library.recipe_files:
            if line := file.lines.get(path):
                return f"{_shown(file.path)}:{line}"
        group, *inner = path
        for option in self._options(group):
            file = self._library.option_file(group, option)
            if file and (line := file.lines.get(tuple(inner))):
                return f"{_shown(file.path)}:{line}"
        if group in self._choices and not inner:
            return f"override {group}={','.join(self._choices[group])}"
        if line := self._library.primary.lines.get(path):
            return f"{_shown(self._library.primary.path)}:{line}"
        return None

    def _options(self, group: str) -> list[str]:
        """The chosen options of a group: command line over recipe over default."""
        if group in self._choices:
            return self._choices[group]
        for file in self._library.recipe_files:
            entries = file.tree.get("defaults", [])
            for entry in entries if isinstance(entries, list) else []:
                if isinstance(entry, dict):
                    key, value = next(iter(entry.items()))
                    if key.split()[-1].strip("/") == group:
                        return value if isinstance(value, list) else [value]
        return self._library.default_choices.get(group, [])


def _shown(path: Path) -> Any:
    """As short as it can be said: relative to the working directory or to the package."""
    for base in (Path.cwd(), shipped("configs").parent):
        if path.is_absolute() and path.is_relative_to(base):
            return path.relative_to(base)
    return os.fspath(path)
