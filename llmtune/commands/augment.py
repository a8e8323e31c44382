"""`llmtune augment`: train rows as augmenters change them, shown (`--preview`) or written for others to use."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llmtune import console, startup
from llmtune.config.compose import compose
from llmtune.config.sections.augment import TextAugment

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    composed = compose("augment", args, config_dir=options.config_dir)
    config = composed.config
    for text in composed.notices:
        console.notice(text)
    for name, section in config.augment.items():
        if not isinstance(section, TextAugment):
            console.notice(f"augment.{name} acts behind the text, where there is nothing to read: it is left out here")
    with startup.importing():
        from llmtune.commands import augmenting  # torch from here on

    if not config.preview:
        augmenting.require_place(Path(config.output), config.data)
    with tempfile.TemporaryDirectory(prefix="llmtune-") as scratch:
        rows = augmenting.train_rows(config, Path(scratch))
        if config.preview:
            augmenting.show(rows, seed=config.seed, count=config.rows, epoch=config.epoch)
        else:
            epochs = range(config.epoch, config.epoch + config.copies)
            augmenting.write(rows, Path(config.output), config.data, epochs=epochs)
    return 0
