"""From source files to prepared rows: load, split, tokenizer, encode, and the facts that travel with the model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llmtune import console
from llmtune.config.sections.data import DataConfig
from llmtune.data import forms, prepared, sources
from llmtune.data import split as splits
from llmtune.data import tokenizer as tokenizers
from llmtune.data.preparation import Preparation
from llmtune.data.prepared import Prepared
from llmtune.data.readers.columns import listed
from llmtune.data.spool import Spool
from llmtune.errors import ConfigError, DataError, ModelError
from llmtune.tasks import lists
from llmtune.tasks.base import Task
from llmtune.tasks.classification import label_names_of, plain_label
from llmtune.tasks.language_modeling import CausalLmTask
from llmtune.tasks.registry import rebuild
from llmtune.tasks.tagging import TaggingTask
from llmtune.tasks.text import as_numbers

CHUNK_ROWS = 10_000
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


def load_rows(
    data: DataConfig, *, need_label: bool, form: forms.Form = "label", seed: int, spool: Spool | None = None
) -> dict[str, pa.Table]:
    """The canonical tables of a data set, its labels in plain form and renamed as `data.label_map` says."""
    tables = sources.load(data, need_label=need_label, form=form, seed=seed, spool=spool)
    renamed = {plain_label(old): plain_label(new) for old, new in data.label_map.items()}
    unused = set(renamed)
    for name, table in tables.items():
        if "label" in table.column_names:
            given = table["label"].unique()
            plain = [plain_label(label) for label in given.to_pylist()]
            unused -= set(plain)
            names = pa.array([renamed.get(label, label) for label in plain], pa.string())
            labels = names.take(pc.index_in(table["label"], value_set=given))
            tables[name] = table.set_column(table.column_names.index("label"), "label", labels)
        for column in ("labels", "tags"):
            if column in table.column_names:
                tables[name], found = lists.renamed(table, column, renamed)
                unused -= found
        if "tags" in table.column_names:
            tables[name] = lists.as_bio(tables[name])
    if unused:
        console.notice(f"data.label_map renames {listed(sorted(unused))}, which is the label of no row")
    return tables


def task_of(ready: Prepared) -> Task:
    """The task whose rows these are."""
    return rebuild(ready.meta["task"], tokenizer_dir_of(ready))


def tokenizer_dir_of(ready: Prepared) -> Path | None:
    directory = ready.directory / "tokenizer"
    return directory if directory.is_dir() else None


def encode_rows(task: Task, table: pa.Table, *, advance: Callable[[int], None] | None = None) -> Iterator[dict[str, pa.Array]]:
    """Stored columns of a table, chunk by chunk; `advance` is told how many of its rows are done.

    Raises:
        DataError: a row is unfit, or the rows leave a language model nothing to predict.
    """

    def chunks() -> Iterator[dict[str, pa.Array]]:
        for batch in table.to_batches(max_chunksize=CHUNK_ROWS):
            if not batch.num_rows:
                continue  # of a chunk from which no row was taken
            yield dict(zip(batch.schema.names, batch.columns, strict=True))
            if advance is not None:
                advance(batch.num_rows)

    encoded = task.encode_stream(chunks()) if isinstance(task, CausalLmTask) else map(task.encode, chunks())
    is_empty = True
    for stored in _ahead(encoded):
        is_empty = is_empty and not any(len(values) for values in stored.values())
        yield stored
    if is_empty:
        raise DataError(
            f"{table.num_rows:,} rows hold too little text: there is nothing to predict",
            where=f"{table['file'][0]}:{table['row'][0]}",
            remedy="add text, or set split.validation_fraction and split.test_fraction to 0 if these rows were set aside",
        )


def _ahead(items: Iterable[dict[str, pa.Array]]) -> Iterator[dict[str, pa.Array]]:
    """Each item but the first is made while the one before it is used: tokenizers leave the interpreter to others."""
    iterator = iter(items)
    item = next(iterator, None)  # reads the tokenizer's files
    with ThreadPoolExecutor(1) as pool:
        while item is not None:
            made = pool.submit(next, iterator, None)
            yield item
            item = made.result()


class _Builder:
    def __init__(self, wanted: Preparation):
        self.data, self.split, self.tokenizer, self.task = wanted.data, wanted.split, wanted.tokenizer, wanted.task
        self.model, self.origin, self.seed, self.family = wanted.model, wanted.origin, wanted.seed, wanted.family

    def build(self, directory: Path) -> dict[str, Any]:
        """Write all splits and the tokenizer below `directory`; returns the meta data."""
        needs_label = self.task.type in forms.NEED_LABEL
        spool = Spool(directory)
        form = forms.OF_TASK[self.task.type]
        tables = load_rows(self.data, need_label=needs_label, form=form, seed=self.seed, spool=spool)
        is_classification = self.task.type == "classification"
        tables = splits.split(tables, self.split, seed=self.seed, stratify=is_classification, spool=spool)
        description, facts = self._describe(tables["train"], directory)
        task = rebuild(description, directory / "tokenizer" if facts else None)
        counts = {}
        for name, table in tables.items():
            with console.progress(f"preparing {name}", total=table.num_rows, unit="rows") as advance:
                counts[name] = _Counter(task, table, advance)
                prepared.write_split(directory, name, counts[name].columns())
        if "text" in tables["train"].column_names:
            _warn_of_leak(tables)
        return {
            "task": description,
            "tokenizer": facts,
            "splits": {name: counter.facts() for name, counter in counts.items()},
        }

    def _describe(self, train: pa.Table, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        """Everything that is learned from the train rows before training: tokenizer, label names, means and deviations."""
        description: dict[str, Any] = {"type": self.task.type}
        facts: dict[str, Any] = {}
        if "features" in train.column_names:
            features_NF = np.array(train["features"].to_pylist(), dtype=np.float64)
            description |= {
                "feature_names": list(self.data.feature_columns),
                "feature_mean": features_NF.mean(0).tolist(),
                "feature_std": features_NF.std(0).tolist(),
            }
        else:
            fast, max_length = self._make_tokenizer(train, directory / "tokenizer")
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
            values = np.array(as_numbers(train, "label"))
            description |= {"target_mean": float(values.mean()), "target_std": float(values.std())}
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

    def _make_tokenizer(self, train: pa.Table, directory: Path) -> tuple[Any, int]:
        texts = pa.chunked_array([c for n in ("text", "text_pair") if n in train.column_names for c in train[n].chunks])
        if not any(t.strip() for chunk in texts.chunks for t in chunk.drop_null().to_pylist()):
            raise DataError(f"all {train.num_rows} texts of the train rows are blank", where=f"column {self.data.text_column}")
        kind = tokenizers.kind(self.tokenizer, self.model)
        if kind == "pretrained":
            if self.origin.tokenizer_dir is None:
                raise ModelError("the model has no tokenizer", remedy="use a model directory that holds a tokenizer.json")
            fast = tokenizers.load(self.origin.tokenizer_dir)
        else:
            texts = [text for text in texts.to_pylist() if text]
            console.notice(f"training a {kind} tokenizer on {len(texts):,} texts")
            sizes = {k: getattr(self.tokenizer, k) for k in ("vocab_size", "min_frequency", "lowercase")}
            fast = tokenizers.train(kind, family=self.family, texts=texts, **sizes)
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


class _Counter:
    """Passes stored columns on and counts what goes by."""

    def __init__(self, task: Task, table: pa.Table, advance: Any):
        self._task, self._table, self._advance = task, table, advance
        self._rows = self._tokens = self._at_limit = 0
        self._words = self._unread = 0  # of a tagging

    def columns(self) -> Iterator[dict[str, pa.Array]]:
        limit = self._task.describe().get("max_length", 0)
        for stored in encode_rows(self._task, self._table, advance=self._advance):
            self._rows += len(next(iter(stored.values())))
            if "input_ids" in stored:
                lengths = pc.list_value_length(stored["input_ids"]).to_numpy()
                self._tokens += int(lengths.sum())
                self._at_limit += 0 if isinstance(self._task, CausalLmTask) else int((lengths >= limit).sum())
            if isinstance(self._task, TaggingTask):
                positions = stored["positions"].flatten()
                self._words += len(positions)
                self._unread += pc.sum(pc.less(positions, 0)).as_py() or 0
            yield stored
        if self._unread:
            console.notice(
                f"{self._unread:,} of {self._words:,} words have no token, as they lie beyond max_length={limit} or hold "
                "nothing that the tokenizer knows: they count as tagged O"
            )

    def facts(self) -> dict[str, int]:
        counted = {"rows": self._rows, "source_rows": self._table.num_rows}
        return {**counted, "tokens": self._tokens, "at_max_length": self._at_limit}


def _warn_of_leak(tables: dict[str, pa.Table]) -> None:
    for name in ("validation", "test"):
        if name in tables and (num_leaked := _num_leaked(tables[name], tables["train"])):
            console.notice(f"{num_leaked:,} of {tables[name].num_rows:,} {name} rows also stand in the train rows")


def _num_leaked(held_out: pa.Table, train: pa.Table) -> int:
    """How many rows have texts, not all of them blank, that a train row has, too."""
    names = [n for n in ("text", "text_pair") if n in train.column_names]
    known = _with_texts_of(train, held_out, names)
    alike = {tuple(row.values()) for row in known.to_pylist()}
    rows = (tuple(row.values()) for row in _with_texts_of(held_out, known, names).to_pylist())
    return sum(row in alike and any((text or "").strip() for text in row) for row in rows)


def _with_texts_of(table: pa.Table, other: pa.Table, names: list[str]) -> pa.Table:
    """The texts of those rows of which each text stands in the same column of the other table."""
    for name in names:
        table = table.filter(pc.is_in(table[name], value_set=other[name]))
    return table.select(names)
