"""What a model directory must be before anything in it is loaded."""

import json
import os
import struct
from pathlib import Path
from typing import Any

from llmtune.errors import ModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
AGAIN = "copy or download it again"
SAVED = "name a directory that save_pretrained wrote"
LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
CONVERSION = (
    "convert them where you trust them: AutoModel.from_pretrained(OLD).save_pretrained(NEW) writes model.safetensors; "
    "instead of AutoModel name the class of its head, if it has one"
)


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a directory that is fit to be loaded.

    Raises:
        ModelError: the directory, its config or its weights are missing or damaged, lie elsewhere, or would run code.
    """
    if not directory.is_dir():
        remedy = "name a directory with config.json and model.safetensors"
        raise ModelError(f"there is no model directory {directory}", where=str(directory), remedy=remedy)
    refuse_links_outside(directory)
    config = read_json(directory / "config.json")
    refuse_code(directory, config)
    if (directory / "adapter_config.json").is_file():
        raise ModelError(
            "the directory holds an adapter, no whole model",
            where=str(directory),
            remedy="start from it with model=run model.path=DIRECTORY, which reads the model that it belongs to as well",
        )
    weight_files(directory)
    return config


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a directory, all inside it and whole.

    Raises:
        ModelError: there is none, one is damaged, or the index points outside.
    """
    if (directory / WEIGHTS).is_file():
        names = {WEIGHTS}
    elif (directory / INDEX).is_file():
        names = _indexed_files(directory / INDEX)
    else:
        found = sorted(f.name for pattern in PICKLES for f in directory.glob(pattern))
        if found:
            raise ModelError(
                f"the weights are in {found[0]}, a pickle, which can run code and is never read",
                where=str(directory),
                remedy=CONVERSION,
            )
        raise ModelError(
            f"there is no {WEIGHTS}", where=str(directory), remedy=f"weights of another format are never read: {CONVERSION}"
        )
    files = [directory / name for name in sorted(names)]
    for file in files:
        check_safetensors(file)
    return files


def check_safetensors(file: Path) -> None:
    """Read the header by hand: the library silently takes one of two tensors that have the same name.

    Raises:
        ModelError: the header is damaged or names a tensor twice, or the file has another size than it says.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as f:
            (length,) = struct.unpack("<Q", f.read(8))
            if length > min(size, LONGEST_HEADER):
                raise ValueError("its header is longer than the file")
            header = json.loads(f.read(length), object_pairs_hook=_without_repetition)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except _RepeatedNameError as e:
        raise ModelError(f"{file.name} is damaged: its header names {e} twice", where=str(file), remedy=AGAIN) from None
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError, RecursionError) as e:
        raise ModelError(f"{file.name} is no safetensors file: {e}", where=str(file), remedy=AGAIN) from None
    if expected != size:
        raise ModelError(
            f"{file.name} is damaged: it has {size:,} bytes, its header says {expected:,}", where=str(file), remedy=AGAIN
        )


class _RepeatedNameError(Exception):
    pass


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise _RepeatedNameError(name)
        unique[name] = value
    return unique


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object that a directory of a model has to hold."""
    if not file.is_file():
        raise ModelError(f"there is no {file.name}", where=str(file.parent), remedy=SAVED)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ModelError(f"{file.name} is no JSON: {e}", where=str(file), remedy=AGAIN) from None
    if not isinstance(content, dict):
        raise ModelError(f"{file.name} holds no JSON object", where=str(file), remedy=SAVED)
    return content


def refuse_code(directory: Path, config: dict[str, Any]) -> None:
    """Raises ModelError if a directory or its config names code of its own."""
    scripts = sorted(str(p.relative_to(directory)) for p in directory.rglob("*.py"))
    if scripts or "auto_map" in config:
        raise ModelError(
            f"the model brings code of its own ({scripts[0] if scripts else 'auto_map in config.json'}), which is never run",
            where=str(directory),
            remedy="use a model of an architecture that transformers has",
        )


def refuse_links_outside(directory: Path) -> None:
    """Raises ModelError if a directory holds links that leave it."""
    root = directory.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # the hub's cache links each file of a snapshot to a blob beside it
        allowed.append(root.parent.parent / "blobs")
    for path in directory.rglob("*"):
        # realpath, since Path.resolve raises on links that lead to each other
        if path.is_symlink() and not any(Path(os.path.realpath(path)).is_relative_to(place) for place in allowed):
            raise ModelError(
                f"{path.relative_to(directory)} is a link that leads outside the directory",
                where=str(directory),
                remedy="put the file itself there",
            )


def _indexed_files(index: Path) -> set[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index.name} has no weight_map", where=str(index), remedy=AGAIN)
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"the weight index points outside the directory: {name!r}", where=str(index), remedy=SAVED)
        if not (index.parent / name).is_file():
            raise ModelError(f"the weight index names {name}, which is missing", where=str(index), remedy=AGAIN)
    return set(weight_map.values())
