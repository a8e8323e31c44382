"""From source files to prepared rows: load, split, tokenizer, encode, and the facts that travel with the model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune import console
from llmtune.config.sections.balance import CLASSIFIERS
from llmtune.config.sections.clean import CleanConfig
from llmtune.config.sections.data import DataConfig
from llmtune.config.sections.model import CHATS, TaskConfig
from llmtune.config.sections.split import SplitConfig
from llmtune.data import forms, prepared, sources
from llmtune.data import split as splits
from llmtune.data import tokenizer as tokenizers
from llmtune.data.accounting import Ledger
from llmtune.data.clean import stages as cleaning
from llmtune.data.leaks import in_common
from llmtune.data.preparation import Preparation
from llmtune.data.prepared import Prepared
from llmtune.data.readers.columns import listed
from llmtune.data.spool import Spool, batches_of
from llmtune.errors import ConfigError, DataError, ModelError
from llmtune.tasks import chat_templates, lists
from llmtune.tasks.base import Task
from llmtune.tasks.chat import Chat
from llmtune.tasks.classification import label_names_of, plain_label
from llmtune.tasks.encoding import CHUNK_BYTES, CHUNK_ROWS, Counted
from llmtune.tasks.instruction import InstructionTask
from llmtune.tasks.preference_losses import settings_of
from llmtune.tasks.registry import rebuild
from llmtune.tasks.text import as_numbers

LONGEST_BY_DEFAULT = 512


def build(wanted: Preparation, directory: Path) -> dict[str, Any]:
    """Write the rows of all splits as the task stores them, and the tokenizer, into an empty directory; returns the facts.

    Raises:
        DataError: the rows cannot serve the task, or a file changed meanwhile.
        ModelError: the model's tokenizer is unfit, or its longest input is exceeded.
    """
    inputs = wanted.key["inputs"]
    facts = _Builder(wanted).build(directory)
    if sources.fingerprint(wanted.data) != inputs:
        raise DataError("the source files changed while they were prepared", remedy="start again when they are complete")
    return facts


def tokenizer_of(wanted: Preparation, train: pa.Table, directory: Path) -> tuple[Any, int]:
    """The tokenizer that rows would be prepared with, written into `directory`, and the tokens of the longest row.

    Raises:
        DataError: all texts are blank.
        ModelError: the model's tokenizer is unfit, or its longest input is exceeded.
    """
    return _Builder(wanted).make_tokenizer(train, directory)


def load_rows(
    data: DataConfig,
    *,
    need_label: bool,
    form: forms.Form = "label",
    seed: int,
    spool: Spool | None = None,
    also: sources.Also | None = None,
    ledger: Ledger | None = None,
) -> dict[str, pa.Table]:
    """The canonical tables of a data set, its labels in plain form and renamed as `data.label_map` says; see `sources.load`."""
    renamed = {plain_label(old): plain_label(new) for old, new in data.label_map.items()}
    unused = set(renamed)

    def rename(labels: pa.Array) -> pa.Array:
        encoded = labels.dictionary_encode()
        plain = [plain_label(label) for label in encoded.dictionary.to_pylist()]
        unused.difference_update(plain)
        return pa.array([renamed.get(label, label) for label in plain], pa.string()).take(encoded.indices)

    how = {"need_label": need_label, "form": form, "seed": seed, "spool": spool}
    tables = sources.load(data, **how, also=also, rename=rename, ledger=ledger)
    if unused:
        console.notice(f"data.label_map renames {listed(sorted(unused))}, which is the label of no row")
    return tables


def load_splits(
    data: DataConfig,
    split: SplitConfig,
    clean: dict[str, CleanConfig],
    task: TaskConfig,
    *,
    seed: int,
    spool: Spool,
    ledger: Ledger,
) -> dict[str, pa.Table]:
    """The canonical tables of the train, validation and test rows, cleaned, as they are before a task encodes them."""
    needs_label, form = task.type in forms.NEED_LABEL, forms.OF_TASK[task.type]
    also = splits.also_read(split, data)
    tables = load_rows(data, need_label=needs_label, form=form, seed=seed, spool=spool, also=also, ledger=ledger)
    given = cleaning.before_split(tables, clean, ledger=ledger, spool=spool)
    tables = splits.split(given, split, seed=seed, stratify=task.type in CLASSIFIERS, spool=spool)
    ledger.enter_split(given, tables)
    return cleaning.after_split(tables, clean, seed=seed, ledger=ledger, spool=spool)


def task_of(ready: Prepared) -> Task:
    """The task whose rows these are."""
    return rebuild(ready.meta["task"], tokenizer_dir_of(ready))


def tokenizer_dir_of(ready: Prepared) -> Path | None:
    directory = ready.directory / "tokenizer"
    return directory if directory.is_dir() else None


class _Builder:
    def __init__(self, wanted: Preparation):
        self.data, self.split, self.tokenizer, self.task = wanted.data, wanted.split, wanted.tokenizer, wanted.task
        self.model, self.origin, self.seed, self.family = wanted.model, wanted.origin, wanted.seed, wanted.family
        self.clean = wanted.clean

    def build(self, directory: Path) -> dict[str, Any]:
        """Write all splits and the tokenizer below `directory`; returns the meta data."""
        spool, ledger = Spool(directory), Ledger(directory)
        tables = load_splits(self.data, self.split, self.clean, self.task, seed=self.seed, spool=spool, ledger=ledger)
        description, facts = self._describe(tables["train"], directory)
        task = rebuild(description, directory / "tokenizer" if facts else None)
        counts = {}
        for name, table in tables.items():
            with console.progress(f"preparing {name}", total=table.num_rows, unit="rows") as advance:
                packed = name == "train" and isinstance(task, InstructionTask) and task.packing
                counts[name] = Counted(task, table, advance, packed=packed)
                prepared.write_split(directory, name, counts[name].columns())
                ledger.enter(name, "tokenized", **counts[name].entry())
        if "text" in tables["train"].column_names:
            _warn_of_leak(tables)
        return {
            "task": description,
            "tokenizer": facts,
            "splits": {name: counter.facts() for name, counter in counts.items()},
            "account": {name: ledger.account[name] for name in tables},
        }

    def _describe(self, train: pa.Table, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything that is learned from the train rows before training: tokenizer, label names, means and deviations."""
        description: dict[str, Any] = {"type": self.task.type}
        facts: dict[str, Any] = {}
        if "features" in train.column_names:
            width = len(self.data.feature_columns)
            mean, std = _mean_and_std(train, lambda rows: rows.column("features").flatten().to_numpy().reshape(-1, width))
            names = list(self.data.feature_columns)
            description |= {"feature_names": names, "feature_mean": mean.tolist(), "feature_std": std.tolist()}
        else:
            fast, max_length = self.make_tokenizer(train, directory / "tokenizer")
            facts = {
                "vocab_size": len(fast),
                "pad_token_id": fast.pad_token_id if fast.pad_token_id is not None else fast.eos_token_id or 0,
                "bos_token_id": fast.bos_token_id,
                "eos_token_id": fast.eos_token_id,
            }
            description |= {
                "max_length": max_length,
                "pad_token_id": facts["pad_token_id"],
                "token_types": "token_type_ids" in fast.model_input_names and self.data.text_pair_column is not None,
                "has_pairs": self.data.text_pair_column is not None,
            }
            description |= self._token_facts(fast)
        if self.task.type == "classification":
            description["label_names"] = self._label_names(train)
        elif self.task.type == "regression":
            mean, std = _mean_and_std(train, lambda rows: np.array(as_numbers(_columns(rows), "label")))
            description |= {"target_mean": float(mean), "target_std": float(std)}
        elif self.task.type == "multilabel":
            description |= {"label_names": self._list_names(train, "labels"), "threshold": self.task.threshold}
        elif self.task.type == "tagging":
            description["label_names"] = self._list_names(train, "tags")
        return description, facts

    def _token_facts(self, fast: Any) -> dict[str, Any]:
        """The token ids that a language model's task works with."""
        if self.task.type == "causal_lm":
            is_plain_text = sources.is_plain_text(self.data)
            end_of_text = None if is_plain_text else fast.eos_token_id
            return {"end_of_text": end_of_text, "isolate_documents": self.task.isolate_documents}
        if self.task.type == "instruction":
            own = {name: getattr(self.task, name) for name in ("answers", "system_prompt", "too_long", "packing")}
            return {**own, "end_ids": list(Chat(fast).end_ids)}
        if self.task.type == "preference":
            own = {name: getattr(self.task, name) for name in ("loss", "system_prompt", "too_long")}
            given = {name: getattr(self.task, name) for name in ("beta", "label_smoothing", "margin")}
            return {**own, **asdict(settings_of(self.task.loss, **given)), "end_ids": list(Chat(fast).end_ids)}
        if self.task.type == "masked_lm":
            if fast.mask_token_id is None:
                remedy = "use an encoder such as BERT, or task=causal_lm"
                raise ModelError("the model's tokenizer has no mask token", remedy=remedy)
            return {
                "mask_probability": self.task.mask_probability,
                "mask_token_id": fast.mask_token_id,
                "special_ids": sorted(fast.all_special_ids),
                "vocab_size": len(fast),
            }
        return {}

    def _label_names(self, train: pa.Table) -> list[str]:
        if self.task.label_names is not None:
            return _given_label_names(self.task.label_names)
        names = label_names_of(train)
        known = (self.origin.description or {}).get("label_names")
        return list(known) if known and set(names) <= set(known) else names

    def _list_names(self, train: pa.Table, column: str) -> list[str]:
        """Of labels or tags that come in lists."""
        if self.task.label_names is not None:
            return _given_label_names(self.task.label_names)
        given = tuple(plain_label(name) for name in self.data.label_columns)
        names = lists.label_names_of(train, given) if column == "labels" else lists.tag_names_of(train)
        known = (self.origin.description or {}).get("label_names")
        return list(known) if known and set(names) <= set(known) else names

    def make_tokenizer(self, train: pa.Table, directory: Path) -> tuple[Any, int]:
        texts = _Texts(train)
        template = self.task.template if self.task.type in CHATS else None
        if not any(text.strip() for text in texts):
            raise DataError(f"all {train.num_rows} texts of the train rows are blank", where=f"column {self.data.text_column}")
        kind = tokenizers.kind(self.tokenizer, self.model)
        if kind == "pretrained":
            if self.origin.tokenizer_dir is None:
                raise ModelError("the model has no tokenizer", remedy="use a model directory that holds a tokenizer.json")
            fast = tokenizers.load(self.origin.tokenizer_dir)
        else:
            console.notice(f"training a {kind} tokenizer on {len(texts):,} texts")
            sizes = {k: getattr(self.tokenizer, k) for k in ("vocab_size", "min_frequency", "lowercase")}
            if self.tokenizer.type == "word":
                sizes["chinese"] = self.tokenizer.chinese
            if template is not None:
                texts = chat_templates.written(template, train)
                sizes["vocab_size"] -= len(chat_templates.new_tokens(template))
            fast = tokenizers.train(kind, family=self.family, texts=texts, **sizes)
            if template is not None:
                chat_templates.add_tokens(fast, template)
        if template is not None:
            name = chat_templates.install(fast, template)
            console.notice(
                f"conversations are written by {f'the template {name}' if name else 'the template of the tokenizer'}"
            )
        limit = self.origin.max_length
        wanted = self.tokenizer.max_length or min(limit or LONGEST_BY_DEFAULT, LONGEST_BY_DEFAULT)
        if limit is not None and wanted > limit:
            raise ModelError(
                f"tokenizer.max_length is {wanted}, but the model reads at most {limit} tokens",
                remedy=f"set tokenizer.max_length={limit}",
            )
        num_special = fast.num_special_tokens_to_add(pair=self.data.text_pair_column is not None)
        if wanted <= num_special and self.task.type != "causal_lm":
            problem = f"{wanted} leaves no room for text beside {num_special} special tokens: set {num_special + 1} or more"
            raise ConfigError([f"tokenizer.max_length: {problem}"])
        fast.save_pretrained(directory)
        return fast, wanted


def _given_label_names(given: Sequence[str]) -> list[str]:
    names = [plain_label(name) for name in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or len(names) < 2:
        problem = f"'{twice}' stands there twice" if twice is not None else "one class alone leaves nothing to tell apart"
        raise ConfigError([f"task.label_names: {problem}"])
    return names


def _columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    return dict(zip(batch.schema.names, batch.columns, strict=True))


def _mean_and_std(table: pa.Table, values_of: Callable[[pa.RecordBatch], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of the values of all rows, [N, ...], a batch at a time."""
    mean = sum(values_of(rows).sum(0) for rows in _batches(table)) / table.num_rows
    variance = sum(np.square(values_of(rows) - mean).sum(0) for rows in _batches(table)) / table.num_rows
    return mean, np.sqrt(variance)


def _batches(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return batches_of(table, rows=CHUNK_ROWS, size=CHUNK_BYTES)


class _Texts:
    """The texts of a table that are not empty, as often as they are asked for; few of them are in memory at a time."""

    def __init__(self, table: pa.Table):
        self._table = table.select([name for name in ("text", "text_pair") if name in table.column_names])

    def __iter__(self) -> Iterator[str]:
        for name in self._table.column_names:
            for batch in _batches(self._table.select([name])):
                yield from filter(None, batch.column(0).to_pylist())

    def __len__(self) -> int:
        return sum(pc.sum(pc.greater(pc.binary_length(c), 0)).as_py() or 0 for c in self._table.columns)


def _warn_of_leak(tables: dict[str, pa.Table]) -> None:
    for name in ("validation", "test"):
        if name in tables and (num_leaked := in_common(tables[name], tables["train"])):
            told = f"{num_leaked:,} of {tables[name].num_rows:,} {name} rows also stand in the train rows"
            console.notice(f"{told}; clean=leaks leaves those train rows out")
