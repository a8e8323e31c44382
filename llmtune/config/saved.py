"""Writes and reads the config.yaml of a run."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmtune.config.compose import decode, to_yaml
from llmtune.config.explain import explain
from llmtune.config.schema import FORMAT, TrainConfig
from llmtune.config.stages import SEVERAL
from llmtune.config.store import Library
from llmtune.config.yaml_source import read_yaml
from llmtune.errors import CheckpointError, ConfigError
from llmtune.files import replacing


def write(path: Path, tree: dict[str, Any], *, header: str) -> None:
    """Save a composed tree; `header` becomes the comment on top."""
    with replacing(path, durable=True) as file:
        file.write(f"# {header}\n{to_yaml(tree)}")


def read(path: Path) -> tuple[TrainConfig, list[str]]:
    """A saved config, and the keys that were missing in it, as `key=value` of the packaged defaults.

    Raises:
        CheckpointError: it is of a newer format.
        ConfigError: it does not decode.
    """
    file = read_yaml(path)
    if file.tree.get("format", 0) > FORMAT:
        raise CheckpointError(f"the config has format {file.tree['format']}", where=str(path), remedy="use a newer llmtune")
    tree, added = _with_missing(file.tree, Library("train", None))
    try:
        return decode(tree, TrainConfig), added
    except ValidationError as e:
        lines = file.lines
        raise ConfigError(
            explain(e.errors(), tree, TrainConfig, lambda key: f"{path}:{lines[key]}" if key in lines else str(path))
        ) from None


def same(path: Path, tree: dict[str, Any], *, apart_from: set[str]) -> bool:
    """Whether a saved config says the same as a composed one; `apart_from` names dotted keys that do not count."""
    try:
        return not differences(path, tree, apart_from=apart_from)
    except (ConfigError, CheckpointError):
        return False


def differences(path: Path, tree: dict[str, Any], *, apart_from: set[str]) -> list[str]:
    """What a composed config says otherwise than a saved one, as `key: old -> new`; see `same`.

    Raises:
        CheckpointError, ConfigError: see `read`.
    """
    old, new = (_flat(t, apart_from) for t in (read(path)[0].model_dump(mode="json"), tree))
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}" for key in changed]


def _flat(tree: dict[str, Any], leave_out: set[str], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key not in leave_out:
            flat |= _flat(value, leave_out, f"{key}.") if isinstance(value, dict) and value else {key: value}
    return flat


def _with_missing(tree: dict[str, Any], library: Library, prefix: str = "") -> tuple[dict[str, Any], list[str]]:
    """Fill in groups that are newer than the run, and keys that sections have now, from the packaged option of their type."""
    absent = [group for group, chosen in library.default_choices.items() if chosen == ["none"] and group not in tree]
    nothing = {group: {} if group in SEVERAL else library.option_of_type(group, "none") for group in absent}
    filled, added = tree | nothing, [f"{prefix}{group}=none" for group in absent]
    for group, section in tree.items():
        if group == "finetune" and isinstance(section, dict):
            filled[group], more = _with_missing(section, library, "finetune.")
            added += more
        elif isinstance(section, dict) and group in library.groups:
            default = library.option_of_type(group, section["type"]) if "type" in section else library.only_option(group)
            filled[group], more = _completed(section, default, f"{prefix}{group}.")
            added += more
            for name, entry in section.items() if "type" not in section else ():
                if isinstance(entry, dict) and "type" in entry:  # one of several
                    default = library.option_of_type(group, entry["type"])
                    filled[group][name], more = _completed(entry, default, f"{prefix}{group}.{name}.")
                    added += more
    return filled, added


def _completed(section: dict[str, Any], default: dict[str, Any], prefix: str) -> tuple[dict[str, Any], list[str]]:
    missing = {key: value for key, value in default.items() if key not in section and value != "???"}
    return section | missing, [f"{prefix}{key}={value}" for key, value in missing.items()]
