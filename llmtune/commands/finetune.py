"""`llmtune finetune`: train on from a run or a model directory, on new data or a new task."""

from typing import TYPE_CHECKING

from llmtune.commands import train

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    return train.run(args, options, verb="finetune")
