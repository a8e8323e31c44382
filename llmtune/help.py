"""The help page of each verb: usage, examples, groups with their options, and every key with type, default and help."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from llmtune.cli import FLAGS, OF_VERB, VERBS
from llmtune.config import reference
from llmtune.config.schema import VERB_CONFIGS

EXAMPLES: dict[str, list[tuple[str, str]]] = {
    "run": [
        ("llmtune run +recipe=quickstart", "the whole way; a stage that is finished is not done twice"),
        ("llmtune run +recipe=lstm_cls export=onnx", "with one export only"),
    ],
    "inspect": [
        ("llmtune inspect data.train_file=reviews.csv", "rows with columns text and label"),
        ("llmtune inspect +recipe=bert_cls clean=[html,near_duplicates]", "what is left once that is done"),
    ],
    "plan": [("llmtune plan +recipe=bert_cls training.batch_size=64", "exit code 5 if the longest batch does not fit")],
    "preprocess": [("llmtune preprocess +recipe=bert_cls", "train finds the prepared data by a hash of inputs and config")],
    "augment": [
        ("llmtune augment +recipe=bert_cls augment=[synonyms,keyboard] --preview", "rows as the first epoch would see them"),
        ("llmtune augment +recipe=bert_cls augment=drop --preview epoch=3 rows=10", "as the fourth would"),
        ("llmtune augment +recipe=bert_cls augment=[drop,swap] copies=4 output=more.jsonl", "four epochs of rows, for others"),
    ],
    "train": [
        ("llmtune train +recipe=bert_cls", "a recipe"),
        ("llmtune train +recipe=bert_cls optimizer.lr=3e-5 seed=1", "with other values"),
        ("llmtune train data.train_file=reviews.csv model=lstm", "no recipe: your own rows with columns text and label"),
        ("llmtune train +recipe=lstm_cls augment=[drop,swap] augment.swap.rate=.3", "several options of a group"),
        ("llmtune train +recipe=lstm_cls ~data.where", "without a value that the recipe sets"),
        ("llmtune train -m +recipe=lstm_cls optimizer.lr=1e-3,3e-3 seed=0,1", "a sweep: four jobs, a table at the end"),
    ],
    "evaluate": [
        ("llmtune evaluate runs/lstm_cls/latest", "the test rows of the run's own data"),
        ("llmtune evaluate runs/lstm_cls/latest split=validation checkpoint=latest", "other rows, another checkpoint"),
        ("llmtune evaluate runs/lstm_cls/latest file=new.csv", "a file with the same columns"),
    ],
    "finetune": [
        ("llmtune finetune runs/bert_cls/latest data.train_file=new.csv tuning=lora", "on new rows"),
        ("llmtune finetune models/minilm task=regression data.train_file=stars.csv", "a model directory, another task"),
    ],
    "average": [
        ("llmtune average runs/bert_cls/2026-*", "the mean of runs that began with the same weights; a new run"),
        ("llmtune average runs/bert_cls/2026-* how=greedy", "of those that do the validation metric good"),
        ("llmtune average runs/bert_cls/latest", "of the checkpoints that a run has kept (training.keep_checkpoints)"),
    ],
    "export": [
        ("llmtune export runs/lstm_cls/latest", "a transformers directory and ONNX, each compared with the checkpoint"),
        ("llmtune export runs/lstm_cls/latest export=onnx output=model", "one of them, elsewhere"),
    ],
    "predict": [
        ("llmtune predict runs/lstm_cls/latest reviews.txt output=scores.jsonl", "each line of a file"),
        ("echo 'a fine film' | llmtune predict runs/lstm_cls/latest", "standard input"),
        (
            "llmtune predict runs/gpt_lm/latest starts.txt temperature=.8 top_p=.9 max_new_tokens=100",
            "a model that writes text",
        ),
    ],
    "chat": [
        ("llmtune chat runs/instruct/latest", "a run, a checkpoint, an export"),
        ("llmtune chat models/smollm2 temperature=0", "any causal model of transformers"),
        ("printf 'hello\\nand you?\\n' | llmtune chat models/smollm2", "one turn a line, for scripts"),
    ],
    "verify": [("llmtune verify runs/lstm_cls/latest", "every checkpoint, export and log of the run")],
    "list": [
        ("llmtune list", "recipes and groups"),
        ("llmtune list recipes", "recipes with their whole headers"),
        ("llmtune list model", "the options of a group"),
    ],
    "show": [
        ("llmtune show +recipe=bert_cls optimizer.lr=3e-5", "the config of train"),
        ("llmtune show evaluate runs/lstm_cls/latest", "of another verb"),
    ],
    "schema": [("llmtune schema > train.schema.json", "for an editor"), ("llmtune schema predict", "of another verb")],
    "completion": [
        ('eval "$(llmtune completion bash)"', "in ~/.bashrc"),
        ('eval "$(llmtune completion zsh)"', "in ~/.zshrc, after compinit"),
        ("llmtune completion fish > ~/.config/fish/completions/llmtune.fish", "once"),
    ],
}


def show_page(verb: str) -> None:
    """Print a verb's page on stdout, as wide as the terminal."""
    width = shutil.get_terminal_size((110, 24)).columns
    console = Console(highlight=False, width=max(width, 40), soft_wrap=False)
    with console.capture() as page:  # rich ends the process itself where the reader of a pipe is gone
        for part in _page(verb):
            console.print(part)
    print(page.get(), end="")


def _page(verb: str) -> Iterator[RenderableType]:
    row = VERBS[verb]
    takes_keys = " [KEY=VALUE ...]" if verb in VERB_CONFIGS or verb == "show" else ""
    yield Text.assemble((f"llmtune {verb}", "bold"), f": {row.summary}\n\nusage: llmtune {verb} {row.usage}{takes_keys}\n")
    yield Text("examples", style="bold")
    for command, why in EXAMPLES[verb]:
        yield Text.assemble((f"  # {why}\n", "dim"), f"  {command}")
    yield Text()
    flags = [flag for flag in FLAGS if flag != "--version" and (row.sweeps or flag != "--multirun")]
    flags = [flag for flag in flags if OF_VERB.get(flag, (verb,))[0] == verb]
    yield from _section("flags", [(Text(flag), Text(FLAGS[flag])) for flag in flags])
    if verb not in VERB_CONFIGS:
        return
    schema = VERB_CONFIGS[verb]
    chosen = {group: names for group, names in reference.default_options(verb).items() if group in schema.model_fields}
    if verb == "finetune":
        chosen["model"] = ["run"]
    yield from _section("groups (GROUP=OPTION; *: the default)", [_group_row(group, names) for group, names in chosen.items()])
    yield from _section("keys", list(_key_rows(schema, reference.primary_values(verb), "")))
    if "finetune" in schema.model_fields:
        words = "section: the same groups and keys once more, for the second stage of run; only what differs"
        yield from _section(None, [(Text("finetune"), Text("null"), Text(""), Text(words))])
    for group, default in chosen.items():
        yield from _group(group, default)


def _group_row(group: str, default: list[str]) -> tuple[Text, Text]:
    names = [option.name for option in reference.options(group)]
    names += [name for name in default if name not in names]  # none
    shown = [Text(f"{name}*", style="bold") if name in default else Text(name) for name in names]
    return Text(group), Text(" ").join(shown)


def _group(group: str, default: list[str]) -> Iterator[RenderableType]:
    """A table for each class, the default first; an option whose keys were listed already tells only the values that differ."""
    listed: dict[tuple[reference.Key, ...], reference.Option] = {}
    for option in sorted(reference.options(group), key=lambda option: option.name not in default):
        keys = tuple(reference.keys(option.section))
        prefix = f"{group}.{option.entry}." if option.entry else f"{group}."
        title = Text.assemble((f"{group}={option.name}", "bold"), f"  {option.doc}")
        first = listed.setdefault(keys, option)
        if first is option:
            yield title
            yield from _section(None, list(_key_rows(option.section, option.values, prefix)))
        else:
            changed = [key.name for key in keys if option.values[key.name] != first.values[key.name]]
            differing = [f"{prefix}{key}={_shown(option.values[key])}" for key in changed]
            if keys:
                title.append("\n  " + ", ".join([f"as {group}={first.name}", *differing]), style="dim")
            yield title.append("\n")


def _key_rows(section: Any, values: dict[str, Any], prefix: str) -> Iterator[tuple[Text, ...]]:
    for key in reference.keys(section):
        yield Text(prefix + key.name), Text(_shown(values[key.name])), Text(key.takes, style="cyan"), Text(key.doc)


def _shown(value: Any) -> str:
    if value == "???":
        return "(needed)"
    return value if isinstance(value, str) else json.dumps(value)


def _section(title: str | None, rows: list[tuple[Text, ...]]) -> Iterator[RenderableType]:
    if title:
        yield Text(title, style="bold")
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for number in range(len(rows[0]) if rows else 0):
        table.add_column(no_wrap=number == 0 and len(rows[0]) > 2, overflow="fold", min_width=8 if number else None)
    for row in rows:
        table.add_row(Text.assemble("  ", row[0]), *row[1:])
    if rows:
        yield table
    yield Text()
