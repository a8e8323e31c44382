"""The whole config of each verb, and what must hold between its sections. The schema is the allow-list."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmtune.config import (
    conversation_rules,
    export_rules,
    learning_rules,
    objective_rules,
    row_rules,
    tuning_rules,
)
from llmtune.config.metrics import METRICS
from llmtune.config.sections.augment import AugmentConfig, TextAugment
from llmtune.config.sections.average import AverageConfig
from llmtune.config.sections.averaging import AveragingConfig
from llmtune.config.sections.balance import BalanceConfig
from llmtune.config.sections.base import Count, Name, RunName, Section
from llmtune.config.sections.clean import CleanConfig
from llmtune.config.sections.data import DataConfig
from llmtune.config.sections.generation import WRITING, Sampling
from llmtune.config.sections.model import CHATS, ModelConfig, TaskConfig
from llmtune.config.sections.objective import ObjectiveConfig
from llmtune.config.sections.optimizer import OptimizerConfig
from llmtune.config.sections.schedule import ScheduleConfig
from llmtune.config.sections.split import SplitConfig
from llmtune.config.sections.tokenizer import TokenizerConfig
from llmtune.config.sections.training import (
    EvaluationConfig,
    ExportConfig,
    HardwareConfig,
    TrainingConfig,
)
from llmtune.config.sections.tuning import TuningConfig

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
    averaging: AveragingConfig
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
    run_name: RunName | None
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


class PredictConfig(Sampling, RunVerbConfig):
    """Config of `predict`. The keys of sampling are for models that write text."""

    file: Name
    """Lines or rows to predict (second word after the run); -: standard input."""
    output: Name
    """Where the JSONL goes; -: standard output."""
    batch_size: Count
    """Lines predicted at once."""


class ChatConfig(Sampling, RunVerbConfig):
    """Config of `chat`."""

    system: Name | None
    """First message of the conversation; null: the one that the model was trained with, if there was one."""


class ExportVerbConfig(RunVerbConfig):
    """Config of `export`."""

    export: dict[str, ExportConfig]
    """Exports to make, by name."""
    output: Name | None
    """Folder for the exports; null: export/ of the run."""
    parity_rows: Annotated[int, Field(ge=1, le=100_000)]
    """Rows on which each export is compared with the checkpoint; of a language model as many as hold 20,000 tokens."""


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
    "chat": ChatConfig,
    "export": ExportVerbConfig,
    "average": AverageConfig,
}


def contradictions(config: StageConfig) -> list[str]:
    """What each section allows but two together do not. Each problem starts with the key to change."""
    return [text for wrong, text in _rules(config) if wrong]


def _rules(config: StageConfig):
    yield from row_rules.rules(config)
    data, model, task, training = config.data, config.model, config.task, config.training
    is_pretrained = model.type == "run" or bool(getattr(model, "pretrained", None))
    is_language_model = task.type in ("causal_lm", "masked_lm", *CHATS)
    known_metrics = METRICS[task.type]

    yield (
        training.epochs is None and training.max_steps is None,
        "training.epochs: is null, and so is training.max_steps: set one of them",
    )
    yield from learning_rules.rules(config)
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
    yield (
        training.activation_checkpointing and model.type in ("lstm", "mlp"),
        f"training.activation_checkpointing: needs a transformers model, and model={model.type} is none",
    )
    yield from tuning_rules.rules(config, is_pretrained=is_pretrained)
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
        training.early_stopping_patience is not None and not row_rules.has_validation_rows(config),
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
        not data.feature_columns and data.text_column is None and task.type not in CHATS,
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
        task.type in ("causal_lm", "masked_lm", "tagging") and data.text_pair_column is not None,
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
    yield from conversation_rules.rules(config)
    yield (
        config.evaluation.generate_rows > 0 and task.type not in WRITING,
        f"evaluation.generate_rows: is for models that write text, and task={task.type} writes none: leave it out",
    )
    yield from objective_rules.rules(config)
    yield from export_rules.rules(config)
