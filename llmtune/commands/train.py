"""`llmtune train`: from data and a model to the best checkpoint."""

from typing import TYPE_CHECKING

from llmtune import console, startup
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options", *, verb: str = "train") -> int:
    with startup.importing():
        composed = compose(verb, args, config_dir=options.config_dir)
        for text in composed.notices:
            console.notice(text)
        if composed.config.wants_all_folds:
            from llmtune.commands import folds

            return folds.run(verb, args, options, composed)
        from llmtune.commands import accounts, runs, stage  # torch from here on
        from llmtune.training.distributed import Ranks

    with Ranks(composed.config.hardware) as ranks:
        result, directory = stage.train_stage(
            composed.config,
            ranks,
            find=lambda ready: runs.find_run(composed, ready, takes_finished=False),
            create=lambda: runs.new_run(composed, verb=verb),
        )
        accounts.tell_run(directory)
        runs.tell_result(result, directory)
        if ranks.is_main:
            runs.report_result(result, directory)
    return 0
