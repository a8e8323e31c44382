"""Where the directory of a model lies. Nothing here imports torch, unless a GGUF file is to be converted."""

import os
from pathlib import Path

from llmtune import paths
from llmtune.errors import DataError, ModelError
from llmtune.failures import first_words
from llmtune.models import gguf

# Of a hub repository: neither pickles nor scripts are fetched.
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def locate(name: str, revision: str | None = None) -> Path:
    """The directory of a model: a path, `package:NAME/PATH`, or a name on the hub, which is downloaded.

    A GGUF file, or a directory that holds nothing but one, stands for what it was converted to.

    Raises:
        ModelError: there is none, it is unfit, or the hub does not give it.
        ResourceError: a GGUF file needs a package that is not installed.
    """
    try:
        path = paths.resolve(name)
    except DataError as e:
        raise ModelError(e.message, where=e.where, remedy=e.remedy) from None
    if gguf.is_gguf(path):
        return gguf.as_directory(path)
    if os.path.isdir(path):  # which is False, too, for what can be no path
        file = gguf.the_only_one(path)
        return path.resolve() if file is None else gguf.as_directory(file)
    if name.startswith(paths.PREFIX) or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ModelError(
            f"there is no directory {name}",
            where=name,
            remedy="name a directory, a GGUF file, package:NAME/PATH, or a model of the hub",
        )
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    """A model of the hub as a directory of the local cache.

    Raises:
        ModelError: it cannot be had.
    """
    from huggingface_hub import constants, snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except Exception as e:
        reason = f"does not come from the hub: {first_words(e)}"
        remedy = "check the name, its revision and the network, or name a local directory"
        if constants.HF_HUB_OFFLINE:
            reason = "was not downloaded before (HF_HUB_OFFLINE is set)"
            remedy = "name a local directory, or unset HF_HUB_OFFLINE to download it"
        message = f"there is no directory {name}, and a model of that name {reason}"
        raise ModelError(message, where=name, remedy=remedy) from None
