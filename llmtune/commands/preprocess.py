"""`llmtune preprocess`: read, split and tokenize the data; train finds the result in the cache."""

from typing import TYPE_CHECKING

from llmtune import console
from llmtune.commands import folds
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options


def run(args: list[str], options: "Options") -> int:
    composed = compose("preprocess", args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    if folds.are_wanted(composed.config):
        return folds.run("preprocess", args, options, composed)
    from llmtune.commands import accounts
    from llmtune.commands.preparing import prepare_stage
    from llmtune.data import accounting

    ready = prepare_stage(composed.config)
    rows = [("prepared data", str(ready.directory))]
    for name, facts in ready.meta["splits"].items():
        text = f"{facts['rows']:,} rows"
        if facts["source_rows"] != facts["rows"]:
            text += f" from {facts['source_rows']:,}"
        if facts["tokens"]:
            text += f", {facts['tokens']:,} tokens"
        if facts["truncated"]:
            text += f", {facts['truncated']:,} rows cut at max_length"
        rows.append((name, text))
    task = ready.meta["task"]
    if names := task.get("label_names"):
        rows.append(("labels", f"{len(names)}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"))
    if ready.meta["tokenizer"]:
        rows.append(("tokenizer", f"{ready.meta['tokenizer']['vocab_size']:,} entries, max_length {task['max_length']}"))
    if (ready.directory / accounting.DROPPED).is_file():
        rows.append(("left out or flagged", str(ready.directory / accounting.DROPPED)))
    accounts.tell(ready.meta["account"])
    console.result_table("prepared", rows)
    return 0
