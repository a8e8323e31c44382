"""Where the packaged YAML lies."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(name: str) -> Path:
    """configs/ or recipes/: inside the package in a wheel, beside it in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def primary_config(verb: str) -> Path:
    """The file that holds a verb's defaults."""
    own = shipped("configs") / f"{verb}.yaml"
    return own if own.is_file() else shipped("configs") / "train.yaml"
