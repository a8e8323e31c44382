"""`llmtune train`: from data and a model to the best checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmtune import console
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options", *, verb: str = "train") -> int:
    composed = compose(verb, args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    from llmtune.commands import runs, stage  # torch from here on
    from llmtune.training.distributed import Ranks

    ranks = Ranks(composed.config.hardware)
    directory = Path(ranks.from_main(lambda: str(runs.open_run(composed, verb=verb, takes_finished=False))))
    result = stage.train_stage(composed.config, directory, ranks)
    runs.tell_result(result, directory)
    if ranks.is_main:
        runs.report_result(result, directory)
    return 0
