"""The table of export formats."""

import importlib.util
from pathlib import Path

from torch import nn

from llmtune.config.sections.training import ExportConfig
from llmtune.errors import ModelError, ResourceError
from llmtune.export import Bundle, adapter, gguf, huggingface, onnx
from llmtune.tuning.adapters import has_virtual_tokens

# The packages that a form needs; all are in the extra of its name, but for those named below.
NEEDS = {"huggingface": (), "adapter": ("peft",), "onnx": ("onnx", "onnxruntime"), "gguf": ("gguf",)}
EXTRAS = {"adapter": "lora"}


def require(exports: dict[str, ExportConfig]) -> None:
    """Find out before a long training whether these forms can be written.

    Raises:
        ResourceError: a package is not installed.
    """
    for export in exports.values():
        extra = EXTRAS.get(export.type, export.type)
        for package in NEEDS[export.type]:
            if importlib.util.find_spec(package) is None:
                raise ResourceError(
                    f"export={export.type} needs the package {package}",
                    remedy=f"pip install 'llmtune[{extra}]', or leave it out: export=huggingface",
                )


def refuse_unmergeable(exports: dict[str, ExportConfig], model: nn.Module) -> None:
    """Raises ModelError if one of these forms cannot hold the virtual tokens of a model."""
    for name, export in exports.items():
        if has_virtual_tokens(model) and export.type != "adapter":
            raise ModelError(
                f"export.{name}: virtual tokens cannot be merged into the weights that {export.type} holds",
                remedy="use export=adapter",
            )


def write(export: ExportConfig, bundle: Bundle, directory: Path) -> None:
    """Write one form of a model into a new directory.

    Raises:
        ResourceError: an optional package is missing, or the disk is full.
        ModelError: the model cannot be written in this form.
    """
    directory.mkdir(parents=True)
    match export.type:
        case "huggingface":
            huggingface.write(bundle, directory)
        case "adapter":
            adapter.write(bundle, directory)
        case "onnx":
            onnx.write(bundle, directory, opset=export.opset)
        case "gguf":
            gguf.write(bundle, directory, outtype=export.outtype)
