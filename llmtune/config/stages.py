"""The second stage: what a `finetune` section leaves out is inherited from the first."""

import json
from typing import Any

from llmtune.config.schema import StageConfig
from llmtune.config.store import Library

FREE_MAPPINGS = (
    "where",
    "label_map",
    "by_label",
    "conversation_columns",
    "roles",
)  # replaced as a whole: their keys are the user's own
# Groups of which one wants several: a finetune section that has one replaces the first stage's.
SEVERAL = ("clean", "augment", "balance", "objective")
FIRST_STAGE = "result of the first stage"  # the model path of a stage inside `run`, filled in when the stage starts


def complete_finetune(tree: dict, library: Library) -> tuple[dict[str, Any], list[str]]:
    """The section as a whole stage config, and what is wrong with it.

    A section with another `type` than the first stage's starts from the packaged option of that type.
    """
    section = tree["finetune"]
    problems = []
    if "model" in section:
        problems.append("finetune.model: may not be set: the stage starts from the first stage's result")
    if "tokenizer" in section and set(section["tokenizer"] or {}) - {"max_length"}:
        problems.append("finetune.tokenizer: only max_length may be set: the tokenizer is the first stage's")
    stage = {key: json.loads(json.dumps(tree[key])) for key in StageConfig.model_fields if key in tree}
    stage["model"] = {**library.option_of_type("model", "run"), "path": FIRST_STAGE}
    stage["tokenizer"] = {
        **library.option_of_type("tokenizer", "auto"),
        "max_length": tree.get("tokenizer", {}).get("max_length"),
    }
    for key, value in section.items():
        if key == "model":
            continue
        base = stage.get(key)
        if key in SEVERAL:
            stage[key] = value
        elif isinstance(value, dict) and isinstance(base, dict):
            kind = value.get("type", base.get("type"))
            if kind != base.get("type"):
                base = _without_mandatory(library.option_of_type(key, kind))
            stage[key] = _merge(base, value)
        else:
            stage[key] = value
    return stage, problems


def for_finetune(
    tree: dict, values: dict[str, Any], choices: dict[str, list[str]], library: Library
) -> tuple[dict[str, Any], list[str]]:
    """The config of `llmtune finetune`: the recipe's finetune section if it has one, and always model=run; and what is wrong.

    Args:
        tree: the composed config.
        values: the values of the command line by key; they win over the section.
        choices: the options of groups that the command line names; they win over the section, too.
        library: supplies the values of absent keys.
    """
    problems = []
    if set(choices.get("tokenizer", ())) - {"auto", "pretrained"}:
        problem = "would not fit the model's weights, which have a tokenizer of their own"
        problems.append(f"tokenizer={choices['tokenizer'][0]}: {problem}")
    path = tree.get("model", {}).get("path")
    if isinstance(tree.get("finetune"), dict):
        section = {key: value for key, value in tree["finetune"].items() if key not in choices}
        stage, found = complete_finetune({**tree, "finetune": section}, library)
        problems += found
    else:
        tokenizer = tree.get("tokenizer", {})
        stage = {key: tree[key] for key in StageConfig.model_fields if key in tree}
        stage["tokenizer"] = {**library.option_of_type("tokenizer", "auto"), "max_length": tokenizer.get("max_length")}
    stage["model"] = {key: value for key, value in library.option_of_type("model", "run").items() if key != "path"}
    if path is not None:
        stage["model"]["path"] = path
    for key, value in values.items():
        *parents, last = key.split(".")
        node = stage
        for part in parents:
            node = node.setdefault(part, {}) if isinstance(node, dict) else {}
        if parents and parents[0] != "finetune":
            node[last] = value
    rest = {key: value for key, value in tree.items() if key not in StageConfig.model_fields}
    return {**rest, **stage, "finetune": None}, problems


def _merge(base: dict, change: dict) -> dict:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both and key not in FREE_MAPPINGS else value
    return merged


def _without_mandatory(tree: dict) -> dict:
    return {key: value for key, value in tree.items() if value != "???"}
