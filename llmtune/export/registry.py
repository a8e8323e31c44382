"""The table of export formats."""

import importlib.util
from pathlib import Path

from llmtune.config.sections.training import ExportConfig
from llmtune.errors import ResourceError
from llmtune.export import Bundle, gguf, huggingface, onnx

# The packages that a form needs; all are in the extra of its name.
NEEDS = {"huggingface": (), "onnx": ("onnx", "onnxruntime"), "gguf": ("gguf",)}


def require(exports: dict[str, ExportConfig]) -> None:
    """Find out before a long training whether these forms can be written.

    Raises:
        ResourceError: a package is not installed.
    """
    for export in exports.values():
        for package in NEEDS[export.type]:
            if importlib.util.find_spec(package) is None:
                raise ResourceError(
                    f"export={export.type} needs the package {package}",
                    remedy=f"pip install 'llmtune[{export.type}]', or leave it out: export=huggingface",
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
        case "onnx":
            onnx.write(bundle, directory, opset=export.opset)
        case "gguf":
            gguf.write(bundle, directory, outtype=export.outtype)
