"""The table of export formats."""

from pathlib import Path

from llmtune.config.sections.training import ExportConfig
from llmtune.export import Bundle, huggingface, onnx


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
