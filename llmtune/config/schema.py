"""The whole config of each verb, and what must hold between its sections. The schema is the allow-list."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmtune.config import objective_rules
from llmtune.config.metrics import METRICS
from llmtune.config.sections.augment import AugmentConfig, TextAugment
from llmtune.config.sections.balance import CLASSIFIERS, EXCLUSIVE, BalanceConfig, Sampling
from llmtune.config.sections.base import Count, Name, Section
from llmtune.config.sections.clean import CleanConfig, TextCleaner
from llmtune.config.sections.data import DataConfig
from llmtune.config.sections.model import ModelConfig, TaskConfig, TuningConfig
from llmtune.config.sections.objective import ObjectiveConfig
from llmtune.config.sections.split import SplitConfig
from llmtune.config.sections.tokenizer import TokenizerConfig
from llmtune.config.sections.training import (
    EvaluationConfig,
    ExportConfig,
    HardwareConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)

FORMAT = 1  # of a saved config; raised when an older one needs translation


class StageConfig(Section):
    """What one training stage needs."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Decides every random draw: split, order, dropout, masks, augmentation."""
    data: DataConfig
    clean: dict[str, CleanConfig]
    """Cleaners of the rows by name, applied in written order."""
    split: SplitConfig
    tokenizer: TokenizerConfig
    task: TaskConfig
    augment: dict[str, AugmentConfig]
    """Augmenters of the train rows by name, applied in written order."""
    objective: dict[str, ObjectiveConfig]
    """What training makes small besides the loss of the task, by name."""
    balance: dict[str, BalanceConfig]
    """What is done about classes of unlike size, by name."""
    model: ModelConfig
    tuning: TuningConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    training: TrainingConfig
    hardware: HardwareConfig
    evaluation: EvaluationConfig

    @model_validator(mode="after")
    def _sections_agree(self):
        problems = contradictions(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self


class TrainConfig(StageConfig):
    """Config of `inspect`, `preprocess`, `plan`, `train`, `finetune` and `run`."""

    format: Literal[1]
    """Version of the config format."""
    run_name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")] | None
    """Folder of the runs below output_dir; null: the recipe's name, or the task's."""
    output_dir: Name
    """Folder that holds all runs."""
    export: dict[str, ExportConfig]
    """Exports that `run` makes, by name."""
    finetune: StageConfig | None
    """The second stage of `run`: only what differs from the first; its model is the first stage's result."""

    @property
    def folder(self) -> Path:
        """Where the runs of this config lie."""
        return Path(self.output_dir) / (self.run_name or self.task.type)

    @property
    def wants_all_folds(self) -> bool:
        """Whether one run for each fold is asked for, and not a single run."""
        return self.split.type == "kfold" and self.split.fold is None


class AugmentVerbConfig(TrainConfig):
    """Config of `augment`."""

    preview: bool
    """Whether rows are shown before and after, instead of written (--preview)."""
    rows: Count
    """Train rows that a preview shows."""
    epoch: Annotated[int, Field(ge=0)]
    """The epoch of training whose texts are shown, or written first."""
    copies: Count
    """How many epochs are written, one after another."""
    output: Name | None
    """File for the changed rows: .jsonl or .csv."""

    @model_validator(mode="after")
    def _has_something_to_do(self):
        problems = []
        if not any(isinstance(augment, TextAugment) for augment in self.augment.values()):
            problems.append(
                "augment: no augmenter of texts is chosen: augment=[drop,swap], or another of `llmtune list augment`"
            )
        if self.output is None and not self.preview:
            problems.append("output: is not set: output=FILE.jsonl writes the rows, --preview shows some")
        elif self.output is not None and not self.output.endswith((".jsonl", ".csv")):
            problems.append(f"output: '{self.output}' ends neither in .jsonl nor in .csv, which are what is written")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class RunVerbConfig(Section):
    """What the verbs share that work on a finished run."""

    run: Name
    """A run directory, one of its checkpoints, or a model directory (the first word after the verb)."""
    checkpoint: Literal["best", "latest"]
    """Which checkpoint of the run."""
    hardware: HardwareConfig


class EvaluateConfig(RunVerbConfig):
    """Config of `evaluate`."""

    split: Literal["train", "validation", "test"]
    """Rows to score the model on."""
    file: Name | None
    """A file to score instead, read as the run's data was."""
    evaluation: EvaluationConfig


class PredictConfig(RunVerbConfig):
    """Config of `predict`."""

    file: Name
    """Lines or rows to predict (second word after the run); -: standard input."""
    output: Name
    """Where the JSONL goes; -: standard output."""
    batch_size: Count
    """Lines predicted at once."""
    max_new_tokens: Count
    """Tokens that a causal model adds to each line."""


class ExportVerbConfig(RunVerbConfig):
    """Config of `export`."""

    export: dict[str, ExportConfig]
    """Exports to make, by name."""
    output: Name | None
    """Folder for the exports; null: export/ of the run."""
    parity_rows: Annotated[int, Field(ge=1, le=100_000)]
    """Rows on which each export is compared with the checkpoint."""


VERB_CONFIGS: dict[str, type[Section]] = {
    "preprocess": TrainConfig,
    "inspect": TrainConfig,
    "plan": TrainConfig,
    "train": TrainConfig,
    "finetune": TrainConfig,
    "run": TrainConfig,
    "augment": AugmentVerbConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportVerbConfig,
}


def contradictions(config: StageConfig) -> list[str]:
    """What each section allows but two together do not. Each problem starts with the key to change."""
    return [text for wrong, text in _rules(config) if wrong]


def _rules(config: StageConfig):
    yield from _balance_rules(config)
    data, model, task, training, schedule = config.data, config.model, config.task, config.training, config.schedule
    is_pretrained = model.type == "run" or bool(getattr(model, "pretrained", None))
    is_language_model = task.type in ("causal_lm", "masked_lm")
    known_metrics = METRICS[task.type]

    yield (
        training.epochs is None and training.max_steps is None,
        "training.epochs: is null, and so is training.max_steps: set one of them",
    )
    yield (
        training.max_steps is not None and (schedule.warmup_steps or 0) > training.max_steps,
        f"schedule.warmup_steps: the warm-up ({schedule.warmup_steps} steps) is longer than the run "
        f"(training.max_steps={training.max_steps})",
    )
    yield (
        training.best_metric is not None and training.best_metric not in known_metrics,
        f"training.best_metric: '{training.best_metric}' is never computed for task={task.type}; "
        f"there are {', '.join(known_metrics)}",
    )
    yield (
        training.gradient_accumulation_steps > training.batch_size,
        f"training.gradient_accumulation_steps: {training.gradient_accumulation_steps} micro-batches cannot be cut from "
        f"training.batch_size={training.batch_size}",
    )
    yield from _split_rules(config)
    yield from _clean_rules(config)
    yield (
        config.tuning.type == "lora" and model.type in ("lstm", "mlp"),
        f"tuning: lora needs a transformers model, and model={model.type} is none: use tuning=full",
    )
    yield (
        training.activation_checkpointing and model.type in ("lstm", "mlp"),
        f"training.activation_checkpointing: needs a transformers model, and model={model.type} is none",
    )
    yield (
        config.tuning.type != "full" and not is_pretrained,
        f"tuning: {config.tuning.type} keeps most weights as they are, and model={model.type} starts with random ones: "
        "set model.pretrained, or use tuning=full",
    )
    yield (
        config.tokenizer.type == "pretrained" and not is_pretrained,
        f"tokenizer: pretrained needs a model that has one, and model={model.type} starts from scratch: use tokenizer=auto",
    )
    yield (
        config.tokenizer.type not in ("auto", "pretrained") and is_pretrained,
        f"tokenizer: {config.tokenizer.type} would not fit the model's weights, which have a tokenizer of their own: "
        "use tokenizer=auto",
    )
    sizes = [key for key in ("num_layers", "num_heads", "hidden_size") if getattr(model, key, None) is not None]
    yield (
        bool(sizes) and model.type in ("bert", "gpt") and is_pretrained,
        f"model.{sizes[0] if sizes else ''}: has no effect on weights that have their size: leave it out, or model.pretrained",
    )
    yield (
        training.early_stopping_patience is not None and not _has_validation_rows(config),
        "training.early_stopping_patience: never acts without validation rows: set split.validation_fraction",
    )
    yield (
        model.type == "mlp" and not data.feature_columns,
        "data.feature_columns: model=mlp reads numeric columns: name them, such as data.feature_columns=[x]",
    )
    yield (
        bool(data.feature_columns) and model.type not in ("mlp", "run"),
        f"data.feature_columns: only model=mlp reads numeric columns, not model={model.type}",
    )
    yield (
        not data.feature_columns and data.text_column is None,
        "data.text_column: is null, and there are no data.feature_columns: nothing to learn from",
    )
    yield (
        bool(data.feature_columns) and task.type not in ("regression", "classification", "multilabel"),
        f"task: {task.type} needs text, not data.feature_columns",
    )
    yield (
        not is_language_model and data.label_column is None and not data.label_columns,
        f"data.label_column: is null, but task={task.type} needs one",
    )
    of_several_labels = "label_columns" if data.label_columns else "label_separator"
    yield (
        task.type != "multilabel" and (bool(data.label_columns) or data.label_separator is not None),
        f"data.{of_several_labels}: is for task=multilabel, where a row may have several labels; "
        f"task={task.type} reads data.label_column",
    )
    yield (
        bool(data.label_columns) and data.label_separator is not None,
        "data.label_separator: has no effect beside data.label_columns: leave one of them out",
    )
    yield (
        task.type == "tagging" and bool(config.augment),
        "augment: task=tagging has a tag for each word, which augmenters do not move along: use augment=none",
    )
    yield (
        (is_language_model or task.type == "tagging") and data.text_pair_column is not None,
        f"data.text_pair_column: task={task.type} reads one text only",
    )
    yield (task.type == "causal_lm" and model.type in ("lstm", "mlp", "bert"), "task: causal_lm needs model=gpt (or model=run)")
    yield (task.type == "masked_lm" and model.type in ("lstm", "mlp", "gpt"), "task: masked_lm needs model=bert (or model=run)")
    yield (
        task.type == "causal_lm" and bool(config.augment),
        "augment: task=causal_lm joins its rows when they are prepared, so they cannot be augmented: use augment=none",
    )
    yield (
        bool(data.feature_columns) and any(augment.type != "mixup" for augment in config.augment.values()),
        "augment: all augmenters but mixup change text, not numbers: use augment=none or augment=mixup",
    )
    yield from objective_rules.rules(config)


def _balance_rules(config: StageConfig):
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
        "threshold" in type_of.values() and not _has_validation_rows(config),
        "balance: threshold is found on validation rows, and there are none: set split.validation_fraction",
    )


def _has_validation_rows(config: StageConfig) -> bool:
    given = getattr(config.data, "validation_file", None) or getattr(config.data, "validation_split", None)
    return bool(given) or getattr(config.split, "validation_fraction", 1) > 0  # kfold has no fraction: a fold is held out


def _split_rules(config: StageConfig):
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


def _clean_rules(config: StageConfig):
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
            section.type == "whitespace" and not section.keep_lines and task.type == "causal_lm",
            f"{key}.keep_lines: is false, and task=causal_lm would never learn where a line ends: set it to true",
        )
