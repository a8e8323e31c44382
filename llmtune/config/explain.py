"""Turns validation errors into sentences with a place and a remedy."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, get_args

from pydantic import BaseModel

MOST_SHOWN = 24  # names in one message
KeyPath = tuple[str, ...]
Origin = Callable[[KeyPath], str | None]


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """The known words, most similar first."""
    return sorted(known, key=lambda k: -difflib.SequenceMatcher(None, word, k).ratio())


def suggestion(word: str, known: Iterable[str]) -> str:
    """'did you mean ...?' if something is close, else the whole list."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    shown = nearest(word, known)[:MOST_SHOWN] + ["..."] * (len(known) > MOST_SHOWN)
    return "there are: " + ", ".join(shown) if known else "there are none"


def explain(errors: list[dict], tree: dict, schema: type[BaseModel], origin: Origin) -> list[str]:
    """One sentence for each mistake, in the order of the config.

    Args:
        errors: of pydantic, as `ValidationError.errors()` gives them.
        tree: the composed config they are about.
        schema: the class it was checked against.
        origin: says where a key was set: `recipes/x.yaml:7`, `override optimizer.lr=-1`.
    """
    by_path: dict[KeyPath, list[dict]] = {}
    for error in errors:
        by_path.setdefault(real_path(error, tree), []).append(error)
    problems = []
    for path, found in by_path.items():
        if found[0]["type"] == "value_error":  # contradictions: each line names its own key
            lines = str(found[0]["ctx"]["error"]).splitlines()
            problems += [_placed(".".join((*path, line)), origin, (*path, *line.split(":")[0].split("."))) for line in lines]
        else:
            problems.append(_placed(f"{'.'.join(path)}: {_message(found, path, tree, schema)}", origin, path))
    return problems


def real_path(error: dict, tree: Any) -> KeyPath:
    """The key path a user knows: pydantic also puts the names of union members into it."""
    path: list[str] = []
    node = tree
    last = len(error["loc"]) - 1
    for i, part in enumerate(error["loc"]):
        if isinstance(node, dict) and str(part) in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int):
            node = node[part] if part < len(node) else None
        elif not (i == last and error["type"] in ("missing", "extra_forbidden")):
            continue
        path.append(str(part))
    return tuple(path)


def _placed(text: str, origin: Origin, path: KeyPath) -> str:
    place = origin(path)
    return f"{text} [{place}]" if place else text


def _message(errors: list[dict], path: KeyPath, tree: dict, schema: type[BaseModel]) -> str:
    error = errors[0]
    kind, value, ctx = error["type"], error["input"], error.get("ctx", {})
    shown = (
        "null"
        if value is None
        else f"'{value}'"
        if isinstance(value, str)
        else str(value).lower()
        if isinstance(value, bool)
        else value
    )
    if kind == "missing":
        return f"is not set; set it with {'.'.join(path)}=..."
    if kind == "extra_forbidden":
        return _unknown_key(path, tree, schema)
    if kind in ("union_tag_not_found", "model_type", "model_attributes_type", "dict_type"):
        return (
            f"is {shown}, expected a mapping with a 'type' of its own" if "tag" in kind else f"is {shown}, expected a mapping"
        )
    if kind == "union_tag_invalid":
        options = [t.strip(" '") for t in ctx["expected_tags"].split(",")]
        return f"there is no type '{ctx['tag']}'; {suggestion(str(ctx['tag']), options)}"
    if kind == "literal_error":
        expected = [e.strip("'") for e in ctx["expected"].replace(" or ", ", ").split(", ")]
        if isinstance(value, str):
            return f"is {shown}; {suggestion(value, expected)}"
        return f"is {shown}; expected one of: {', '.join(expected)}"
    bounds = {
        "greater_than": ("gt", "greater than"),
        "greater_than_equal": ("ge", "at least"),
        "less_than": ("lt", "less than"),
        "less_than_equal": ("le", "at most"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return f"is {shown}; it must be {words} {ctx[key]}"
    if kind == "finite_number":
        return "must be a finite number"
    expected = " or ".join(dict.fromkeys(_expected(e) for e in errors))
    hint = ""
    if isinstance(value, bool) and "text" in expected:
        hint = "; YAML reads yes, no, on, off as true or false: put quotes around the word"
    elif isinstance(value, int | float) and "text" in expected:
        hint = "; put quotes around it"
    elif isinstance(value, str) and ("number" in expected) and value.replace(".", "").replace("-", "").isdigit():
        hint = "; leave out the quotes"
    return f"is {shown}; expected {expected}{hint}"


def _expected(error: dict) -> str:
    names = {
        "string_type": "text",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "tuple_type": "a list",
        "none_required": "null",
        "string_too_short": "a text that is not empty",
        "string_too_long": f"a text of at most {error.get('ctx', {}).get('max_length')} characters",
        "string_pattern_mismatch": "a plain name: letters, digits, '.', '_', '-', no path",
    }
    return names.get(error["type"], error["msg"][0].lower() + error["msg"][1:])


def _unknown_key(path: KeyPath, tree: dict, schema: type[BaseModel]) -> str:
    *parents, key = path
    classes = section_classes(schema, tuple(parents))
    node = tree
    for part in parents:
        node = node[part] if isinstance(node, dict) else {}
    chosen = node.get("type") if isinstance(node, dict) else None
    here = next((c for c in classes if _tag(c) == chosen), classes[0] if classes else None)
    known = [n for n in here.model_fields if n != "type"] if here else []
    owners = [_tag(c) for c in classes if key in c.model_fields and c is not here]
    where = f"{'.'.join(parents)}={chosen}" if chosen else ".".join(parents) or "the config"
    if owners:
        group = ".".join(parents)
        return f"belongs to {group}={owners[0]}, not to {where}; leave it out with ~{'.'.join(path)}"
    if not parents:
        known = [*known, "recipe"]
    return f"unknown key of {where}; {suggestion(key, known)}"


def section_classes(schema: type[BaseModel], path: KeyPath) -> list[type[BaseModel]]:
    """The classes that may stand at a key path: several for a union."""
    classes = [schema]
    for part in path:
        fields = [c.model_fields[part] for c in classes if part in c.model_fields]
        if fields:  # else `part` names an entry of a mapping name -> section, and the classes stay
            classes = [m for f in fields for m in _models_in(f.annotation)]
    return classes


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in get_args(annotation) for m in _models_in(a)]


def _tag(section: type[BaseModel]) -> str | None:
    field = section.model_fields.get("type")
    return get_args(field.annotation)[0] if field else None
