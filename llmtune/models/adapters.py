"""Adapter directories of peft's: what they must be before anything in them is loaded, and whose weights they belong to."""

from pathlib import Path
from typing import Any

from llmtune.errors import ModelError
from llmtune.models import checks
from llmtune.models.location import locate

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KINDS = ("LORA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING")  # of adapters that are read


def is_adapter(directory: Path) -> bool:
    return (directory / CONFIG).is_file()


def read_config(directory: Path) -> dict[str, Any]:
    """The adapter_config.json of a directory that is fit to be loaded.

    Raises:
        ModelError: the directory, its config or its weights are missing or damaged, of an unknown kind, or would run code.
    """
    checks.refuse_links_outside(directory)
    config = checks.read_json(directory / CONFIG)
    checks.refuse_code(directory, config)
    if config.get("peft_type") not in KINDS:
        raise ModelError(
            f"the adapter is of the kind {config.get('peft_type')!r}, which is not known; known are {', '.join(KINDS)}",
            where=str(directory / CONFIG),
            remedy="merge it into its model with peft, and name that model",
        )
    if not (directory / WEIGHTS).is_file():
        remedy = "save it again with safe_serialization=True: pickles are never read"
        raise ModelError(f"there is no {WEIGHTS}", where=str(directory), remedy=remedy)
    checks.check_safetensors(directory / WEIGHTS)
    return config


def base_of(directory: Path, given: str | None) -> Path:
    """The directory of the weights that an adapter belongs to.

    Args:
        directory: of the adapter.
        given: where the user says they are; None: where the adapter says.

    Raises:
        ModelError: there are none.
    """
    if given is not None:
        return locate(given)
    named = read_config(directory).get("base_model_name_or_path")
    if isinstance(named, str) and named and Path(named).is_dir():
        return Path(named).resolve()
    raise ModelError(
        f"the adapter belongs to {named or 'a model that it does not name'}, which is no directory here",
        where=str(directory / CONFIG),
        remedy="name the weights that it was trained on: model.base=DIRECTORY, package:NAME/PATH or a name of the hub",
    )
