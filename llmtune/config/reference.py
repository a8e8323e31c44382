"""What there is to set, read off the schema and the option files: for help, completion and `list`. No hydra, no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from llmtune.config.explain import section_classes
from llmtune.config.schema import VERB_CONFIGS, StageConfig
from llmtune.config.sections.base import Section
from llmtune.config.shipped import primary_config, shipped
from llmtune.config.yaml_source import read_primary, read_yaml

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true | false", type(None): "null"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Key:
    """One setting: its name, what it takes in words, its help, and its values if they are few."""

    name: str
    takes: str
    doc: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """One option of a group. `entry`: its name in the mapping for groups of which one wants several."""

    name: str
    section: type[Section]
    values: dict[str, Any]
    doc: str
    entry: str | None = None


def keys(section: type[Section]) -> list[Key]:
    """The settings of a class, without those that are sections themselves and without `type`."""
    return [
        Key(name, takes(field), (field.description or "").strip(), tuple(choices(field.annotation)))
        for name, field in section.model_fields.items()
        if name != "type" and not section_classes(section, (name,))
    ]


def subsections(section: type[Section]) -> dict[str, list[type[Section]]]:
    """The settings of a class that are sections, with the classes that may stand there."""
    return {name: classes for name in section.model_fields if (classes := section_classes(section, (name,)))}


def is_mapping(section: type[Section], name: str) -> bool:
    """Whether a section is a mapping name -> {type, ...}, of which one wants several."""
    return get_origin(section.model_fields[name].annotation) is dict


def default_options(verb: str) -> dict[str, list[str]]:
    """group -> the options that stand in the verb's defaults list."""
    entries = read_primary(primary_config(verb)).tree["defaults"]
    pairs = [next(iter(entry.items())) for entry in entries if isinstance(entry, dict)]
    return {group: names if isinstance(names, list) else [names] for group, names in pairs if not group.startswith("override")}


def primary_values(verb: str) -> dict[str, Any]:
    """The defaults of the keys that belong to no group."""
    return read_primary(primary_config(verb)).tree


@cache
def options(group: str) -> tuple[Option, ...]:
    """The packaged options of a group, those of one class beside each other."""
    schema = next(schema for schema in VERB_CONFIGS.values() if group in schema.model_fields)
    classes = section_classes(schema, (group,))
    found = [_option(file, classes, is_mapping(schema, group)) for file in sorted((shipped("configs") / group).glob("*.yaml"))]
    return tuple(sorted((o for o in found if o), key=lambda o: (classes.index(o.section), o.name)))


def _option(file: Path, classes: list[type[Section]], mapping: bool) -> Option | None:
    tree, entry = read_yaml(file).tree, None
    if mapping:
        if not tree:  # none
            return None
        entry, tree = next(iter(tree.items()))
    of_type = {get_args(c.model_fields["type"].annotation)[0]: c for c in classes if "type" in c.model_fields}
    section = of_type[tree["type"]] if of_type else classes[0]
    comment = file.read_text(encoding="utf-8").splitlines()[0]
    doc = comment.lstrip("# ") if comment.startswith("#") else " ".join((section.__doc__ or "").split())
    return Option(file.stem, section, tree, doc, entry)


def takes(field: FieldInfo) -> str:
    """What a setting takes, in words: `whole number >= 1 | null`."""
    return " | ".join(dict.fromkeys(_words(field.annotation, field.metadata)))


def _words(annotation: Any, metadata: list) -> Iterator[str]:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [m for arg in args[1:] for m in (arg.metadata if isinstance(arg, FieldInfo) else [arg])]
        yield from _words(args[0], [*inner, *metadata])
    elif origin is Literal:
        yield from map(str, args)
    elif origin is tuple:
        yield f"[{', '.join(_words(args[0], []))}, ...]"
    elif origin is dict:
        yield f"{{name: {', '.join(_words(args[1], []))}, ...}}"
    elif args:
        for arg in args:
            yield from _words(arg, metadata)
    elif isinstance(annotation, type) and issubclass(annotation, Section):
        yield "section"
    else:
        yield _bounded(_NAMES[annotation], metadata)


def _bounded(name: str, metadata: list) -> str:
    if name not in ("number", "whole number"):
        return name
    limits = {limit: value for m in metadata for limit in _SIGNS if (value := getattr(m, limit, None)) is not None}
    bound = {limit: f"{value:,}" for limit, value in limits.items()}
    low, high = bound.get("ge", bound.get("gt")), bound.get("le", bound.get("lt"))
    if low is None or high is None:
        return " ".join([name, *(f"{_SIGNS[limit]} {value}" for limit, value in bound.items())])
    return f"{name} in {'[' if 'ge' in bound else '('}{low}, {high}{']' if 'le' in bound else ')'}"


def choices(annotation: Any) -> list[str]:
    """The values that a setting may have, if they can be listed."""
    if annotation is bool:
        return ["true", "false"]
    if annotation is type(None):
        return ["null"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (tuple, dict):
        return []
    return [value for arg in get_args(annotation) for value in choices(arg)]


def key_values(verb: str) -> dict[str, tuple[str, ...]]:
    """Every key path of a verb's config, for completion, with its values if they are few."""
    schema = VERB_CONFIGS[verb]
    found = dict(_flatten(schema, verb, ""))
    if "finetune" in schema.model_fields:
        found |= dict(_flatten(StageConfig, verb, "finetune."))
    return found


def _flatten(schema: type[Section], verb: str, prefix: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for key in keys(schema):
        yield prefix + key.name, key.values
    for name, classes in subsections(schema).items():
        if name == "finetune":
            continue
        if is_mapping(schema, name):
            for option in options(name):
                yield from ((f"{prefix}{name}.{option.entry}.{key.name}", key.values) for key in keys(option.section))
        else:
            yield from ((f"{prefix}{name}.{key.name}", key.values) for section in classes for key in keys(section))
