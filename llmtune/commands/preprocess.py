"""`llmtune preprocess`: read, split and tokenize the data; train finds the result in the cache."""

from typing import TYPE_CHECKING

from llmtune import console
from llmtune.config.compose import compose

if TYPE_CHECKING:
    from llmtune.cli import Options
    from llmtune.config.schema import TrainConfig
    from llmtune.data.prepared import Prepared


def run(args: list[str], options: "Options") -> int:
    composed = compose("preprocess", args, config_dir=options.config_dir)
    for text in composed.notices:
        console.notice(text)
    if composed.config.wants_all_folds:
        from llmtune.commands import folds

        return folds.run("preprocess", args, options, composed)
    from llmtune.commands import accounts
    from llmtune.commands.preparing import prepare_stage
    from llmtune.data import accounting

    ready = prepare_stage(composed.config)
    variants = _variants(composed.config, ready)
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
    if variants is not None:
        told, train = variants.meta, ready.meta["splits"]["train"]["rows"]
        rows.append(("variants", f"{told['variants']:,} of {train:,} rows, {told['changed']:,} of them with other words"))
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


def _variants(config: "TrainConfig", ready: "Prepared") -> "Prepared | None":
    """Those of the train rows; torch is loaded only where the config asks for some."""
    if not any(section.type == "contextual" for section in config.augment.values()):
        return None
    from llmtune.commands.stage_objectives import prepare_variants
    from llmtune.training import precision

    precision.set_up(config.hardware, exact=config.training.exact)
    return prepare_variants(config, ready)
