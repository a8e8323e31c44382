"""What may follow on a command line, for the shells. `commands/completion.py` holds the scripts that ask."""

from collections.abc import Iterable
from pathlib import Path

from llmtune.cli import FLAGS, OF_VERB, VERBS

SHELLS = ("bash", "zsh", "fish")
_STAGES = ("inspect", "preprocess", "augment", "plan", "train", "finetune", "run")
_CONFIGURED = (*_STAGES, "evaluate", "predict", "chat", "export", "average")


def complete(words: list[str]) -> list[str]:
    """The candidates for the last of the words after `llmtune`. None where only a file can follow: shells know files."""
    *before, current = words or [""]
    if before and before[-1] == "--config-dir":
        return []
    verb = next((word for word in before if word in VERBS), None)
    if current.startswith("-"):
        return _starting(
            current, [flag for flag in FLAGS if (flag != "--version" or verb is None) and OF_VERB.get(flag, (verb,))[0] == verb]
        )
    if verb is None:
        return _starting(current, VERBS)
    given = [word for word in before[before.index(verb) + 1 :] if "=" not in word and word[0:1] not in ("-", "+", "~")]
    if verb == "show":
        if not given:
            shown = _starting(current, _CONFIGURED)
            return shown + (_override("train", current) if current else [])
        verb, given = given[0], given[1:]
    if verb == "completion":
        return _starting(current, SHELLS)
    if verb == "schema":
        return _starting(current, _CONFIGURED)
    if verb == "list":
        return _starting(current, ["recipes", *_groups()])
    if verb not in _CONFIGURED or ("=" not in current and len(given) < VERBS[verb].needed):
        return []
    return _override(verb, current)


def _starting(prefix: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(prefix)]


def _override(verb: str, current: str) -> list[str]:
    """Candidates for one override: `rec` -> `recipe=`, `optimizer.` -> `optimizer.lr=`, `model=b` -> `model=bert`."""
    sign = current[: len(current) - len(current.lstrip("+~"))]
    key, equals, value = current[len(sign) :].partition("=")
    if equals:
        head = value[: max(value.rfind("["), value.rfind(",")) + 1]  # the part of a list or sweep that is typed already
        return _starting(current, [f"{sign}{key}={head}{candidate}" for candidate in _values(verb, key)])
    if sign.startswith("~"):
        return _starting(current, [f"{sign}{name.rstrip('=')}" for name in _names(verb, key)])
    return _starting(current, [f"{sign}{name}" for name in _names(verb, key)])


def _names(verb: str, typed: str) -> list[str]:
    """Keys and groups, one level at a time: an inner name ends in '.', a whole one in '='."""
    from llmtune.config.reference import default_options, key_values

    depth = typed.count(".") + 1
    names = ["recipe=", *(f"{group}=" for group in default_options(verb))] if depth == 1 and verb in _STAGES else []
    for key in key_values(verb):
        parts = key.split(".")
        names.append(".".join(parts[:depth]) + ("=" if len(parts) <= depth else "."))
    return list(dict.fromkeys(names))


def _values(verb: str, key: str) -> list[str]:
    if key == "recipe":
        from llmtune.config.shipped import shipped

        return sorted({file.stem for folder in (Path("recipes"), shipped("recipes")) for file in folder.glob("*.yaml")})
    if key in _groups():
        from llmtune.config.reference import default_options

        if key in default_options(verb):
            return _groups()[key]
    from llmtune.config.reference import key_values

    return list(key_values(verb).get(key, ()))


def _groups() -> dict[str, list[str]]:
    from llmtune.config.shipped import shipped

    found: dict[str, list[str]] = {}
    for file in sorted(shipped("configs").glob("*/*.yaml")):
        found.setdefault(file.parent.name, []).append(file.stem)
    return found
