"""The rows that a config names, read, cleaned and divided as training would, and looked at."""

from pathlib import Path

from llmtune import console
from llmtune.commands.preparing import preparation_of
from llmtune.config.schema import TrainConfig
from llmtune.config.sections.balance import CLASSIFIERS
from llmtune.config.sections.model import CHATS
from llmtune.config.sections.split import KFoldSplit, SplitConfig
from llmtune.data import forms
from llmtune.data import split as splits
from llmtune.data import tokenizer as tokenizers
from llmtune.data.accounting import Ledger
from llmtune.data.clean import stages as cleaning
from llmtune.data.preparation import Preparation
from llmtune.data.spool import Spool
from llmtune.errors import DataError
from llmtune.inspection.findings import Finding
from llmtune.inspection.inspect import Inspection, inspect
from llmtune.inspection.tokens import Tokens
from llmtune.tasks.chat import Chat
from llmtune.tasks.prepare import load_rows, tokenizer_of


def look(config: TrainConfig, scratch: Path) -> Inspection:
    """Look at a config's rows; what is large on the way lies in the folder `scratch`.

    Raises:
        DataError: a source is missing, malformed or empty.
        ModelError: the model's tokenizer is unfit.
    """
    wanted = preparation_of(config)
    spool, ledger = Spool(scratch), Ledger(scratch)
    also = splits.also_read(config.split, config.data)
    how = {"need_label": False, "form": forms.OF_TASK[config.task.type], "seed": config.seed, "spool": spool}
    tables = load_rows(config.data, **how, also=also)
    given = {name: table.num_rows for name, table in tables.items()}
    tables = cleaning.before_split(tables, config.clean, ledger=ledger, spool=spool)
    problem = _missing_label(config, tables["train"].column_names)
    try:
        divided = splits.split(
            tables, _one_fold(config.split), seed=config.seed, stratify=config.task.type in CLASSIFIERS, spool=spool
        )
    except DataError as e:  # few rows, or classes of one row: worth a finding, not the end
        divided = tables
        problem = Finding("no_split", "train", given["train"], given["train"], facts={"why": e.message})
    divided = cleaning.after_split(divided, config.clean, seed=config.seed, ledger=ledger, spool=spool)
    found = inspect(
        divided,
        given=given,
        made=[name for name in divided if name not in given],
        task=config.task.type,
        tokens=_tokens(config, wanted, divided, scratch),
        feature_names=config.data.feature_columns,
        cleaners=list(config.clean),
        seed=config.seed,
        spool=spool,
    )
    if problem is not None:
        found.findings.insert(0, problem)
    return found


def _missing_label(config: TrainConfig, columns: list[str]) -> Finding | None:
    if config.task.type not in ("classification", "regression") or "label" in columns:
        return None
    return Finding("no_label_column", "train", 0, 1, facts={"column": config.data.label_column})


def _one_fold(split: SplitConfig) -> SplitConfig:
    """Of a cross-validation, the first fold stands for all."""
    return split.model_copy(update={"fold": 1}) if isinstance(split, KFoldSplit) and split.fold is None else split


def _tokens(config: TrainConfig, wanted: Preparation, tables: dict, scratch: Path) -> Tokens | None:
    if "text" not in tables["train"].column_names:
        return None
    directory = scratch / "tokenizer"
    try:
        tokenizer, max_length = tokenizer_of(wanted, tables["train"], directory)
    except DataError as e:  # all texts are blank, or too rare: the findings tell
        console.notice(f"tokens are not counted: {e.message}")
        return None
    task, chat = config.task, None
    if task.type in CHATS:
        chat = Chat(tokenizer, answers=getattr(task, "answers", "last"), system_prompt=task.system_prompt)
    return Tokens(
        tokenizer,
        directory,
        max_length=None if config.task.type == "causal_lm" else max_length,
        longest=wanted.origin.max_length,
        is_trained=tokenizers.kind(config.tokenizer, config.model) == "word",
        has_pairs=config.data.text_pair_column is not None,
        chat=chat,
    )
