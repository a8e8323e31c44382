"""What a model directory must be before anything in it is loaded."""

import json
import os
import struct
from pathlib import Path
from typing import Any

from llmtune.errors import ModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a directory that is fit to be loaded.

    Raises:
        ModelError: the directory, its config or its weights are missing, unreadable, or would run code.
    """
    if not directory.is_dir():
        raise ModelError(f"there is no model directory {directory}", remedy="name a directory with config.json and model.safetensors")
    config = read_json(directory / "config.json")
    if "auto_map" in config or list(directory.glob("*.py")):
        raise ModelError(
            "the model brings code of its own, which is never run", where=str(directory), remedy="use a model of an architecture that transformers has"
        )
    weight_files(directory)
    return config


def read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"there is no {file.name}", where=str(file.parent), remedy="name a directory that save_pretrained wrote")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as e:
        raise ModelError(f"{file.name} is no JSON: {e}", where=str(file)) from None
    if not isinstance(content, dict):
        raise ModelError(f"{file.name} holds no JSON object", where=str(file))
    return content


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a directory, all inside it.

    Raises:
        ModelError: there is none, one is damaged, or the index points outside.
    """
    if (directory / WEIGHTS).is_file():
        names = {WEIGHTS}
    elif (directory / INDEX).is_file():
        names = set(read_json(directory / INDEX).get("weight_map", {}).values())
    else:
        found = [f.name for pattern in PICKLES for f in directory.glob(pattern)]
        if found:
            raise ModelError(
                f"the weights are in {found[0]}, a pickle, which can run code and is never read",
                where=str(directory),
                remedy="convert them where you trust them: AutoModel.from_pretrained(...).save_pretrained(..., safe_serialization=True)",
            )
        raise ModelError(f"there is no {WEIGHTS}", where=str(directory))
    files = []
    for name in sorted(names):
        file = directory / name
        if Path(name).name != name or not file.is_file():
            raise ModelError(f"the weight index names {name!r}, which is no file of the directory", where=str(directory / INDEX))
        check_safetensors(file)
        files.append(file)
    return files


def check_safetensors(file: Path) -> None:
    """Read the header by hand: the library takes the last of two tensors with one name."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            repeated = next(n for n in names if names.count(n) > 1)
            raise ModelError(f"the tensor {repeated} stands twice in the header", where=str(file))
        return dict(pairs)

    size = os.path.getsize(file)
    try:
        with file.open("rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            if length > min(size, 100_000_000):
                raise ValueError("the header is longer than the file")
            header = json.loads(f.read(length), object_pairs_hook=unique)
        end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError) as e:
        raise ModelError(f"{file.name} is no safetensors file: {e}", where=str(file)) from None
    if 8 + length + end != size:
        raise ModelError(f"{file.name} is damaged: {size:,} bytes, the header says {8 + length + end:,}", where=str(file))
