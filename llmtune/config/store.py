"""What there is to choose from: packaged groups and recipes, and the user's own."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore

from llmtune.config.explain import suggestion
from llmtune.config.shipped import primary_config, shipped
from llmtune.config.yaml_source import YamlFile, read_primary, read_yaml
from llmtune.errors import ConfigError

ABSENT = object()
OVERRIDE_ENTRY = re.compile(r"^(override\s+)?/?([a-z_/]+)$")


class Library:
    """The groups and recipes that one command line can name.

    Args:
        verb: decides which groups it has at all.
        config_dir: a user's folder: `DIR/<group>/<option>.yaml` and `DIR/recipes/<name>.yaml`.

    Attributes:
        problems: what is wrong with the user's files that were read.
        notices: one line for each user's recipe that hides a packaged one.
        recipes_used: the recipes that were chosen, without their parents.
    """

    def __init__(self, verb: str, config_dir: Path | None):
        self.verb = verb
        self.config_dir = config_dir
        self.problems: list[str] = []
        self.notices: list[str] = []
        self.recipes_used: list[str] = []
        self.recipe_files: list[YamlFile] = []  # chosen ones, a child before its parents
        self.user_options: dict[tuple[str, str], YamlFile] = {}
        if config_dir is not None:
            self._add_user_options(config_dir)

    @cached_property
    def groups(self) -> dict[str, dict[str, Path]]:
        """group -> option -> file, packaged and the user's."""
        found: dict[str, dict[str, Path]] = {}
        for file in sorted(shipped("configs").glob("*/*.yaml")):
            found.setdefault(file.parent.name, {})[file.stem] = file
        for (group, option), file in self.user_options.items():
            found[group][option] = file.path
        return found

    @cached_property
    def primary(self) -> YamlFile:
        return read_primary(primary_config(self.verb))

    @cached_property
    def default_choices(self) -> dict[str, list[str]]:
        """group -> the options that the primary config of this verb chooses."""
        chosen: dict[str, list[str]] = {}
        for entry in self.primary.tree["defaults"]:
            if isinstance(entry, dict):
                (group, names), *_ = entry.items()
                if not group.startswith("override"):
                    chosen[group] = names if isinstance(names, list) else [names]
        return chosen

    @property
    def verb_groups(self) -> set[str]:
        return set(self.default_choices)

    @cached_property
    def recipes(self) -> dict[str, Path]:
        """name -> file; ./recipes of the user's folder first, then --config-dir, then the packaged ones."""
        own = [self.config_dir / "recipes"] if self.config_dir else []
        folders = [Path("recipes"), *own, shipped("recipes")]
        found: dict[str, Path] = {}
        for folder in folders:
            for file in sorted(folder.glob("*.yaml")) if folder.is_dir() else []:
                found.setdefault(file.stem, file)
        return dict(sorted(found.items()))

    def choose(self, group: str, names: list[str], *, of_verb: bool) -> list[str]:
        """Take note of options named on the command line. Returns what is wrong with them."""
        if not of_verb:
            return [f"{group}: `llmtune {self.verb}` has no such group; {suggestion(group, sorted(self.verb_groups))}"]
        known = self.recipes if group == "recipe" else self.groups[group]
        if not names:
            return [f"{group}: no option is named; there are: {', '.join(known)}"]
        problems = [f"{group}: there is no '{n}'; {suggestion(n, known)}" for n in names if n not in known]
        if group == "recipe":
            for name in names:
                if name in known:
                    self.recipes_used.append(name)
                    problems += self._store_recipe(name, ())
        return problems

    def option_file(self, group: str, option: str) -> YamlFile | None:
        if (group, option) in self.user_options:
            return self.user_options[group, option]
        path = self.groups.get(group, {}).get(option)
        return read_yaml(path) if path else None

    def option_of_type(self, group: str, kind: Any) -> dict[str, Any]:
        """The packaged values of a group's option with this `type`: what an absent key means."""
        for file in self.groups.get(group, {}).values():
            tree = read_yaml(file).tree
            for candidate in (tree, *tree.values()):
                if isinstance(candidate, dict) and candidate.get("type") == kind:
                    return dict(candidate)
        return {}

    def only_option(self, group: str) -> dict[str, Any]:
        """The packaged values of a group without types, such as training; empty for other groups."""
        file = shipped("configs") / group / "default.yaml"
        return dict(read_yaml(file).tree) if file.is_file() else {}

    def complete_entries(self, tree: dict[str, Any]) -> None:
        """In groups of which one wants several, give an entry the packaged values of its type that it lacks; in place."""
        for group, entries in tree.items():
            if group == "finetune" and isinstance(entries, dict):
                self.complete_entries(entries)
            elif group in self.groups and isinstance(entries, dict) and "type" not in entries:
                for name, entry in entries.items():
                    if isinstance(entry, dict) and "type" in entry:
                        packaged = self.option_of_type(group, entry["type"])
                        entries[name] = {key: value for key, value in packaged.items() if value != "???"} | entry

    def packaged_value(self, tree: dict, path: tuple[str, ...]) -> Any:
        """What the packaged config has at a key path of a composed tree; `ABSENT` where it has no such key."""
        *parents, last = path
        node: Any = tree
        section: dict = {} if parents else self.primary.tree
        for i, part in enumerate(parents):
            node = node.get(part) if isinstance(node, dict) else None
            if isinstance(node, dict) and "type" in node:
                group = parents[1] if parents[0] == "finetune" and len(parents) > 1 else parents[0]
                section = self.option_of_type(group, node["type"])
            elif i == 0 and isinstance(node, dict):
                section = self.only_option(part)
        return section.get(last, ABSENT)

    def restore(self, tree: dict, path: tuple[str, ...], *, unset: str | None) -> None:
        """Put the packaged value in the place of another, or leave it out where there is none.

        Args:
            tree: the composed config, changed in place.
            path: of the key.
            unset: stands in for a mandatory value; None: the key is left out.
        """
        *parents, last = path
        node: Any = tree
        for part in parents:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return
        value = self.packaged_value(tree, path)
        if value == "???":
            value = ABSENT if unset is None else unset
        if value is ABSENT:
            node.pop(last, None)
        else:
            node[last] = value

    def _add_user_options(self, folder: Path) -> None:
        if not folder.is_dir():
            self.problems.append(f"--config-dir {folder}: is no directory")
            return
        for file in sorted(folder.glob("*/*.yaml")):
            group, option = file.parent.name, file.stem
            if group == "recipes":
                continue
            ours = shipped("configs") / group
            if not ours.is_dir():
                known = [g.name for g in ours.parent.iterdir() if g.is_dir()]
                self.problems.append(f"{file}: there is no group '{group}'; {suggestion(group, known)}")
            elif (ours / file.name).is_file():
                self.problems.append(f"{file}: {group}={option} exists already; give the option a name of its own")
            elif (content := self._read(file)) is not None:
                if "defaults" in content.tree:
                    self.problems.append(f"{file}:{content.lines[('defaults',)]}: an option file has no defaults list")
                    continue
                self.user_options[group, option] = content
                ConfigStore.instance().store(group=group, name=option, node=content.tree, package=group, provider="user")

    def _read(self, file: Path) -> YamlFile | None:
        try:
            content = read_yaml(file)
        except ConfigError as e:
            self.problems += e.problems
            return None
        for path, line in content.lines.items():
            if path[0].split("@")[0].split("/")[0] == "hydra" or path[-1] == "_target_":
                self.problems.append(f"{file}:{line}: '{'.'.join(path)}' is not allowed: a config never names code")
                return None
        return content

    def _store_recipe(self, name: str, children: tuple[str, ...]) -> list[str]:
        """Put a recipe and its parents where Hydra finds them."""
        file = self.recipes[name]
        packaged = shipped("recipes") / f"{name}.yaml"
        if packaged.is_file() and packaged.resolve() != file.resolve():
            self.notices.append(f"recipe {name}: {file} is used instead of the packaged one")
        seen = len(self.problems)
        content = self._read(file)
        problems, self.problems = self.problems[seen:], self.problems[:seen]
        if content is None:
            return problems
        self.recipe_files.append(content)
        entries = content.tree.get("defaults", [])
        line = content.lines.get(("defaults",))
        if not isinstance(entries, list):
            return [*problems, f"{file}:{line}: defaults is a list, such as '- override /model: bert'"]
        for entry in entries:
            problems += self._check_entry(entry, f"{file}:{line}", (*children, name))
        if not problems:
            ConfigStore.instance().store(group="recipe", name=name, node=content.tree, package="_global_", provider="user")
        return problems

    def _check_entry(self, entry: Any, place: str, chain: tuple[str, ...]) -> list[str]:
        if entry == "_self_":
            return []
        if isinstance(entry, str):
            if entry not in self.recipes:
                return [f"{place}: there is no recipe '{entry}'; {suggestion(entry, self.recipes)}"]
            if entry in chain:
                return [f"{place}: recipe '{entry}' inherits from itself"]
            return self._store_recipe(entry, chain)
        match = OVERRIDE_ENTRY.match(next(iter(entry))) if isinstance(entry, dict) and len(entry) == 1 else None
        if match is None or not match[1]:
            return [f"{place}: '{entry}' is not understood; write '- override /group: option'"]
        group, value = match[2], next(iter(entry.values()))
        if group not in self.verb_groups:
            return [f"{place}: there is no group '{group}'; {suggestion(group, sorted(self.verb_groups))}"]
        names = value if isinstance(value, list) else [value]
        return [
            f"{place}: {group} has no option '{n}'; {suggestion(str(n), self.groups[group])}"
            for n in names
            if n not in self.groups[group]
        ]
