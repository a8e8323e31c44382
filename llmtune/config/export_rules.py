"""What forms of export ask of the rest of a config."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.generation import WRITING

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig


def rules(config: "StageConfig") -> Iterator[tuple[bool, str]]:
    """Whether something is wrong, and the problem."""
    exports = getattr(config, "export", {})  # a second stage has none of its own
    name = next((name for name, export in exports.items() if export.type == "gguf"), None)
    if name is None:
        return
    tokenizer, task = config.tokenizer, (config.finetune or config).task
    is_trained = config.model.type != "run" and not getattr(config.model, "pretrained", None)
    yield (
        task.type not in WRITING,
        f"export.{name}: writes models that continue a text, and task={task.type} is no such task: leave it out with "
        f"~export.{name}, or use export=onnx",
    )
    yield (
        is_trained and tokenizer.type in ("word", "char", "wordpiece"),
        f"tokenizer: {tokenizer.type} has no counterpart in llama.cpp, for which export.{name} writes: use tokenizer=bpe, or "
        f"leave it out with ~export.{name}",
    )
    yield (
        is_trained and getattr(tokenizer, "lowercase", False),
        f"tokenizer.lowercase: is true, and llama.cpp, for which export.{name} writes, folds no case away: set it to false, or "
        f"leave the export out with ~export.{name}",
    )
