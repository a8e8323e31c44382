"""From the words of a command line to a checked config. The only module that imports hydra or omegaconf.

Hydra composes primary config, groups, recipe and overrides; pydantic decodes the result. Everything that Hydra would
stop at (an unknown option, a misspelt recipe, bad override grammar) is looked at before, so that all mistakes are told
together. `compose` instantiates nothing, and no key that leads to Hydra's own nodes is let through.
"""

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from llmtune.config.explain import explain, real_path, suggestion
from llmtune.config.origins import Origins
from llmtune.config.schema import VERB_CONFIGS
from llmtune.config.sections.base import Section
from llmtune.config.shipped import primary_config, shipped
from llmtune.config.stages import FREE_MAPPINGS, complete_finetune, for_finetune
from llmtune.config.store import Library
from llmtune.errors import ConfigError

MAX_SWEEP_POINTS = 1000


@dataclass(frozen=True)
class Composed:
    """A checked config, and what is worth telling about how it came to be."""

    config: Section
    tree: dict[str, Any]
    notices: list[str] = field(default_factory=list)
    recipe: str | None = None


@dataclass(frozen=True)
class _Request:
    """A parsed command line: what goes to Hydra, what is done here, and what is wrong with it."""

    hydra: list[str]
    values: dict[str, str]  # key -> the argument that sets it
    deletes: list[str]
    choices: dict[str, list[str]]  # group -> options named on the command line
    problems: list[str]
    replaced: dict[str, list[str]]  # mapping whose keys are the user's own -> its keys on the command line
    without_recipe: list[str]  # arguments that name a faulty recipe: what it sets is missing
    late: dict[str, Any]  # values of keys that share their name with a group of another verb: Hydra takes them for it


def compose(verb: str, args: Sequence[str], *, config_dir: Path | None = None) -> Composed:
    """Compose and check the config of a verb.

    Args:
        verb: a key of `VERB_CONFIGS`.
        args: overrides in Hydra's grammar.
        config_dir: a user's folder with groups and recipes of their own.

    Raises:
        ConfigError: with every mistake that was found.
    """
    library = Library(verb, config_dir)
    request = _read(args, library)
    problems = [*library.problems, *request.problems]
    tree: dict[str, Any] = {}
    try:
        tree = _compose_tree(verb, request.hydra)
    except ConfigError as e:  # if something is wrong already, this may only follow from it
        problems += [] if problems else e.problems
    if not tree:
        raise ConfigError(problems)
    for key, names in request.replaced.items():
        _keep_only(tree, key, names)
    tree |= request.late
    problems += [p for key in request.deletes for p in _delete(tree, key, library)]
    tree = _without_unset(tree)
    library.complete_entries(tree)
    if verb == "finetune":
        values = {key: _value_at(tree, key) for key in request.values}
        tree, found = for_finetune(tree, values, request.choices, library)
        problems += found
    elif isinstance(tree.get("finetune"), dict):
        tree["finetune"], found = complete_finetune(tree, library)
        problems += found
    recipe = "+".join(library.recipes_used) or None
    if "run_name" in tree and tree["run_name"] is None:
        tree["run_name"] = recipe
    origins = Origins(library, request.values, request.choices)
    config = None
    try:
        config = decode(tree, VERB_CONFIGS[verb])
    except ValidationError as e:
        errors = [error for error in e.errors() if error["type"] != "missing" or not request.without_recipe]
        problems += explain(errors, tree, VERB_CONFIGS[verb], origins.find)
        problems += _hidden_contradictions(tree, errors, verb, library, origins)
    if problems or config is None:
        raise ConfigError(problems)
    return Composed(config, json.loads(config.model_dump_json()), library.notices, recipe)


def sweep_points(verb: str, args: Sequence[str], *, config_dir: Path | None = None) -> list[list[str]]:
    """Every point of a sweep as its own list of overrides; the first sweep varies slowest.

    Raises:
        ConfigError: an override is malformed, there are too many points, or any point does not decode.
    """
    axes: list[list[str]] = []
    problems: list[str] = []
    for arg in map(_quoted, args):
        override, problem = _parse(arg)
        if problem:
            problems.append(problem)
        elif override.is_sweep_override():
            prefix = arg[: arg.index("=") + 1]
            try:
                axes.append([prefix + v for v in _sweep_values(override)])
            except (HydraException, ValueError) as e:
                problems.append(f"{arg}: {e}")
        else:
            axes.append([arg])
    num_points = 1
    for axis in axes:
        num_points *= len(axis)
    if num_points > MAX_SWEEP_POINTS:
        problems.append(f"the sweep has {num_points} points; at most {MAX_SWEEP_POINTS} are run")
    if problems:
        raise ConfigError(problems)
    points = [list(point) for point in itertools.product(*axes)]
    for number, point in enumerate(points, 1):
        try:
            compose(verb, point, config_dir=config_dir)
        except ConfigError as e:
            problems += [p if len(points) == 1 else f"sweep point {number} ({' '.join(point)}): {p}" for p in e.problems]
    if problems:
        raise ConfigError(problems)
    return points


def decode(tree: dict, schema: type[Section]) -> Section:
    """Composed and saved configs alike. Strict through JSON: true is no 1, "3" is no 3, and lists still become tuples."""
    return schema.model_validate_json(json.dumps(tree), strict=True)


def to_yaml(tree: dict) -> str:
    """A composed tree as YAML that reads back equal."""
    return OmegaConf.to_yaml(OmegaConf.create(_type_first(tree)))


def _type_first(value: Any) -> Any:
    """Each section begins with what it is."""
    if not isinstance(value, dict):
        return value
    return {k: _type_first(value[k]) for k in sorted(value, key=lambda k: k != "type")}


def groups() -> dict[str, list[str]]:
    """The packaged groups and the names of their options."""
    return {name: sorted(options) for name, options in Library("train", None).groups.items()}


def recipes() -> dict[str, Path]:
    """All recipes by name; those of the user's ./recipes win over packaged ones."""
    return Library("train", None).recipes


@cache
def _default_tree(verb: str) -> dict[str, Any]:
    return _compose_tree(verb, [])


def defaults(verb: str) -> dict[str, Any]:
    """The composed defaults of a verb, unset mandatory values left as '???', for help."""
    return json.loads(json.dumps(_default_tree(verb)))


def recipe_header(path: Path) -> str:
    """The comment at the top of a recipe."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line.lstrip("# ").rstrip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines))


def _parse(arg: str) -> tuple[Override | None, str | None]:
    if arg.startswith("="):
        return None, f"{arg}: there is no key before '='"
    try:
        return OverridesParser.create().parse_override(arg), None
    except HydraException as e:
        text = f"{arg}: is no override of the form key=value: {_first_line(e)}"
        column = _column(e, arg)
        return None, text if column is None else f"{text}\n    {arg}\n    {' ' * column}^"


def _quoted(arg: str) -> str:
    """Hydra's grammar knows letters of ASCII only: other plain words, such as file names, are put in quotes."""
    key, equals, value = arg.partition("=")
    if not equals or value.isascii() and not value.startswith("~") or set(value) & set("[]{}()'\","):
        return arg
    return f"{key}='{value}'" if not value.endswith("\\") else arg


def _column(error: HydraException, arg: str) -> int | None:
    """Where in an argument the parser stopped: it tells by token, by index, or in its message alone."""
    cause = error.__cause__
    token = getattr(cause, "offendingToken", None)
    if token is not None:
        return token.column
    index = getattr(cause, "startIndex", None)
    if index is not None:
        return index
    quoted = re.search(r"'(.+?)'", str(error))
    at = arg.find(quoted[1]) if quoted else -1
    return at if at >= 0 else None


def _sweep_values(override: Override) -> list[str]:
    return list(override.sweep_string_iterator())


def _read(args: Sequence[str], library: Library) -> _Request:
    """Sort the words of the command line. Values become ++key=value: pydantic judges every key, not Hydra the first."""
    request = _Request([], {}, [], {}, [], {}, [], {})
    plain_keys = set(VERB_CONFIGS[library.verb].model_fields) - library.verb_groups
    for arg in map(_quoted, args):
        override, problem = _parse(arg)
        if problem:
            request.problems.append(problem)
            continue
        key, bare = override.key_or_group, arg.lstrip("+~")
        if override.is_sweep_override():
            request.problems.append(f"{arg}: several values make a sweep: add -m, or write a list as {key}=[...]")
        elif override.package is not None or "@" in key:
            request.problems.append(f"{arg}: packages (@) are not supported")
        elif key.split(".")[0].split("/")[0] == "hydra":
            request.problems.append(f"{key}: may not be set: Hydra's own nodes can run code")
        elif override.is_delete():
            request.deletes.append(key)
        elif key in library.groups and key in plain_keys:
            request.values[key], request.late[key] = arg, override.value()
        elif key == "recipe" or key in library.groups:
            names = _names(override)
            found = library.choose(key, names, of_verb=key == "recipe" or key in library.verb_groups)
            request.problems.extend(found)
            request.choices[key] = names
            if not found:
                request.hydra.append(("+" if key == "recipe" else "") + bare)
            elif key == "recipe":
                request.without_recipe.append(bare)
        else:
            request.values[key] = arg
            if key.split(".")[-1] in FREE_MAPPINGS and isinstance(override.value(), dict):
                request.replaced[key] = [str(name) for name in override.value()]
            request.hydra.append("++" + bare)
    return request


def _names(override: Override) -> list[str]:
    text = override.get_value_element_as_str().strip("[]")
    return [name.strip("'\" ") for name in text.split(",") if name.strip("'\" ")]


def _value_at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _compose_tree(verb: str, overrides: list[str]) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(shipped("configs")), version_base="1.3", job_name="llmtune"):
            node = hydra_compose(config_name=primary_config(verb).stem, overrides=overrides)
        OmegaConf.set_struct(node, False)
        node.pop("hydra", None)
        return _resolved(node)
    except (HydraException, OmegaConfBaseException) as e:
        raise ConfigError([_first_line(e)]) from None
    except RecursionError:
        raise ConfigError(["the config is nested too deeply, or an interpolation refers to itself"]) from None


def _resolved(node: Any) -> dict[str, Any]:
    """Resolve interpolations leaf by leaf, so that all that fail are told."""
    problems: list[str] = []

    def walk(value: Any, path: str) -> Any:
        if OmegaConf.is_dict(value):
            return {str(k): walk_child(value, k, f"{path}.{k}" if path else str(k)) for k in value}
        if OmegaConf.is_list(value):
            return [walk_child(value, i, f"{path}.{i}") for i in range(len(value))]
        return value

    def walk_child(parent: Any, key: Any, path: str) -> Any:
        if OmegaConf.is_missing(parent, key):
            return "???"
        try:
            return walk(parent[key], path)
        except OmegaConfBaseException as e:
            problems.append(f"{path}: {_first_line(e)}")
        except RecursionError:
            problems.append(f"{path}: the interpolation refers to itself")
        return None

    tree = walk(node, "")
    if problems:
        raise ConfigError(problems)
    return tree


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _keep_only(tree: dict, key: str, names: list[str]) -> None:
    """Hydra merges mappings; those whose keys are the user's own are replaced."""
    *parents, last = key.split(".")
    node = _value_at(tree, ".".join(parents)) if parents else tree
    if isinstance(node, dict) and isinstance(node.get(last), dict):
        node[last] = {name: value for name, value in node[last].items() if name in names}


def _delete(tree: dict, key: str, library: Library) -> list[str]:
    """Leave out an entry, or what a recipe set: a key that every section of its kind has gets its packaged value back."""
    *parents, last = key.replace("/", ".").split(".")
    node = _value_at(tree, ".".join(parents)) if parents else tree
    if not isinstance(node, dict) or last not in node:
        known = node if isinstance(node, dict) else tree
        return [f"~{key}: there is nothing to leave out; {suggestion(last, known)}"]
    library.restore(tree, (*parents, last), unset=None)
    return []


def _without_unset(value: Any) -> Any:
    """Mandatory values that nobody set would pass as the text '???'."""
    if isinstance(value, dict):
        return {k: _without_unset(v) for k, v in value.items() if v != "???"}
    return value


def _hidden_contradictions(tree: dict, errors: list[dict], verb: str, library: Library, origins: Origins) -> list[str]:
    """Contradictions are looked for only in a config that decodes: mend the faulty keys with defaults and look again."""
    if any(e["type"] == "value_error" for e in errors):
        return []
    mended = json.loads(json.dumps(tree))
    for error in errors:
        library.restore(mended, real_path(error, tree), unset="unset")
    try:
        decode(mended, VERB_CONFIGS[verb])
    except ValidationError as e:
        found = [error for error in e.errors() if error["type"] == "value_error"]
        return explain(found, mended, VERB_CONFIGS[verb], origins.find)
    return []
