"""What must hold between split, cleaners, balance, and the other sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.balance import CLASSIFIERS, EXCLUSIVE, Sampling
from llmtune.config.sections.clean import TextCleaner
from llmtune.config.sections.model import CHATS

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig

Rules = Iterator[tuple[bool, str]]


def rules(config: "StageConfig") -> Rules:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    yield from _balance_rules(config)
    yield from _split_rules(config)
    yield from _clean_rules(config)


def _balance_rules(config: "StageConfig") -> Rules:
    type_of = {name: section.type for name, section in config.balance.items()}
    yield (
        bool(type_of) and config.task.type not in CLASSIFIERS,
        f"balance: needs classes, and task={config.task.type} has none: use balance=none",
    )
    if config.task.type == "multilabel":
        for name, section in config.balance.items():
            yield (
                isinstance(section, Sampling),
                f"balance.{name}: draws rows by their one class, and those of task=multilabel have several labels: "
                "weigh the labels instead, with balance=inverse_frequency or focal",
            )
            yield (
                section.type == "threshold" and section.metric == "f1_minority",
                f"balance.{name}.metric: each label of task=multilabel gets a threshold of its own: set it to f1_macro or null",
            )
    for types in EXCLUSIVE:
        names = [name for name, kind in type_of.items() if kind in types]
        yield (
            len(names) > 1,
            f"balance: {' and '.join(names)} correct for the same thing: leave out all but one "
            f"(~balance.{''.join(names[-1:])})",
        )
    for name, section in config.balance.items():
        yield (
            section.type == "class_weights" and section.by_label is None,
            f"balance.{name}.by_label: names no label: set it, such as 'balance.{name}.by_label={{rare: 5}}'",
        )
    yield (
        "threshold" in type_of.values() and not has_validation_rows(config),
        "balance: threshold is found on validation rows, and there are none: set split.validation_fraction",
    )


def has_validation_rows(config: "StageConfig") -> bool:
    """Whether there are validation rows, given or to be set aside."""
    given = getattr(config.data, "validation_file", None) or getattr(config.data, "validation_split", None)
    return bool(given) or getattr(config.split, "validation_fraction", 1) > 0  # kfold has no fraction: a fold is held out


def _split_rules(config: "StageConfig") -> Rules:
    split, data, resume = config.split, config.data, config.training.resume
    given = next((key for key in ("validation_file", "validation_split") if getattr(data, key, None) is not None), None)
    if split.type != "kfold":
        yield (
            split.validation_fraction + split.test_fraction >= 1,
            "split.test_fraction: together with split.validation_fraction it leaves nothing to train on",
        )
        return
    yield (
        split.fold is not None and split.fold > split.num_folds,
        f"split.fold: there is no fold {split.fold}: they are 1 to split.num_folds={split.num_folds}",
    )
    yield (
        given is not None,
        f"data.{given}: split=kfold takes its validation rows from the train rows: leave it out, or choose another split",
    )
    yield (
        split.fold is None and resume not in ("auto", "never", "must"),
        "training.resume: names one run, and split=kfold makes one for each fold: name the fold with split.fold",
    )


def _clean_rules(config: "StageConfig") -> Rules:
    data, task = config.data, config.task
    type_of = {name: section.type for name, section in config.clean.items()}
    held_out = ("validation_file", "validation_split", "test_file", "test_split")
    fractions = [getattr(config.split, name, 1) for name in ("validation_fraction", "test_fraction")]
    yield (
        bool(type_of) and bool(data.feature_columns),
        "clean: cleaners read texts, not numbers: use clean=none",
    )
    for name, section in config.clean.items():
        key = f"clean.{name}"
        yield (
            isinstance(section, TextCleaner) and task.type == "tagging",
            f"{key}: would move the words away from their tags: leave it out with ~{key}",
        )
        yield (
            section.type == "length" and section.min is None and section.max is None,
            f"{key}.min: is null, and so is {key}.max: set one of them, or leave it out with ~{key}",
        )
        yield (
            section.type == "length" and (section.min or 0) > (section.max or float("inf")),
            f"{key}.min: no text has at least {getattr(section, 'min', 0)} and at most {getattr(section, 'max', 0)}",
        )
        yield (
            section.type == "mislabelled" and task.type != "classification",
            f"{key}: needs classes, and task={task.type} has none: leave it out with ~{key}",
        )
        yield (
            section.type == "leaks" and not any(fractions) and not any(getattr(data, k, None) for k in held_out),
            f"{key}: never acts without validation and test rows: set split.validation_fraction, or leave it out with ~{key}",
        )
        yield (
            section.type == "whitespace" and not section.keep_lines and task.type in ("causal_lm", *CHATS),
            f"{key}.keep_lines: is false, and task={task.type} would never learn where a line ends: set it to true",
        )
