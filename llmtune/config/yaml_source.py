"""Reads a user's YAML as data only, and remembers the line of every key."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llmtune.errors import ConfigError
from llmtune.failures import is_the_systems

MAX_NODES = 20_000  # of a document with all its aliases expanded; a recipe has a hundred

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class YamlFile:
    """A parsed file: its plain data and the line (from 1) of each key path."""

    path: Path
    tree: dict[str, Any]
    lines: dict[KeyPath, int]


class _Loader(yaml.SafeLoader):
    """Safe, and with the numbers that people write: 3e-5 is a number, 2026-01-01 is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith((":timestamp", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?|\.(inf|Inf|INF|nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def read_primary(path: Path) -> YamlFile:
    """A verb's primary config; one that starts from another's, as its first default, has the values of that one, too."""
    file = read_yaml(path)
    first = file.tree["defaults"][0]
    if not isinstance(first, str) or first == "_self_":
        return file
    base = read_primary(path.with_name(f"{first}.yaml"))
    defaults = [*base.tree["defaults"], *file.tree["defaults"][1:]]
    return YamlFile(path, {**base.tree, **file.tree, "defaults": defaults}, file.lines)


def read_yaml(path: Path) -> YamlFile:
    """Read one mapping.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, not a mapping, names code, repeats a key, or is built to
            exhaust memory. Every repeated key is told.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as e:
        if is_the_systems(e):
            raise
        raise ConfigError([f"{path}: cannot be read: {e.strerror}"]) from None
    except UnicodeDecodeError as e:
        raise ConfigError(
            [f"{path}: is not UTF-8: byte {e.start} is 0x{e.object[e.start]:02x}; save the file as UTF-8"]
        ) from None
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return YamlFile(path, {}, {})
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError([f"{path}:{root.start_mark.line + 1}: expected 'key: value' lines"])
        _refuse_bomb(root, path)
        lines, problems = _key_lines(root, path)
        if problems:
            raise ConfigError(problems)
        return YamlFile(path, loader.construct_document(root), lines)
    except yaml.MarkedYAMLError as e:
        raise ConfigError([_explain(e, path, text)]) from None
    except yaml.YAMLError as e:
        raise ConfigError([f"{path}: is not YAML: {str(e).splitlines()[0]}"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: is nested too deeply"]) from None
    finally:
        if loader is not None:
            loader.dispose()


def _refuse_bomb(root: yaml.Node, path: Path) -> None:
    """Count nodes as if aliases were copied, each node once: a bomb of nested aliases is found in linear time."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            if sizes[id(node)] == 0:
                raise ConfigError([f"{path}:{node.start_mark.line + 1}: an alias contains itself"])
            return sizes[id(node)]
        sizes[id(node)] = 0
        children = [c for pair in node.value for c in pair] if isinstance(node, yaml.MappingNode) else node.value
        total = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(map(size, children))
        sizes[id(node)] = total
        return total

    if size(root) > MAX_NODES:
        raise ConfigError([f"{path}: is too large once its aliases are expanded (more than {MAX_NODES} entries)"])


def _key_lines(root: yaml.MappingNode, path: Path) -> tuple[dict[KeyPath, int], list[str]]:
    lines: dict[KeyPath, int] = {}
    problems: list[str] = []

    def walk(node: yaml.Node, prefix: KeyPath) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                problems.append(f"{path}:{key.start_mark.line + 1}: merge keys (<<) are not supported; write the keys out")
                continue
            here = (*prefix, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                problems.append(f"{path}:{line}: duplicate key '{'.'.join(here)}', first set in line {lines[here]}")
            lines[here] = line
            walk(value, here)

    walk(root, ())
    return lines, problems


def _explain(error: yaml.MarkedYAMLError, path: Path, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    source = text.splitlines()[line - 1] if 0 < line <= len(text.splitlines()) else ""
    indent = source[: len(source) - len(source.lstrip())]
    if "\t" in indent:
        return f"{path}:{line}: the line is indented with a tab; YAML allows spaces only"
    if isinstance(error, yaml.constructor.ConstructorError) and "tag" in (error.problem or ""):
        return f"{path}:{line}: a YAML tag such as !!python/object is not allowed; a config holds plain values only"
    return f"{path}:{line}: is not YAML: {error.problem}"
