"""What a config says about changing train rows and about the loss, brought to the task and the model of a stage."""

import hashlib
from pathlib import Path
from typing import Any

from torch import nn

from llmtune import console, paths
from llmtune.commands.preparing import cache_dir
from llmtune.config.schema import StageConfig
from llmtune.config.sections.augment_model import Contextual
from llmtune.data import prepared
from llmtune.data import tokenizer as tokenizers
from llmtune.data.augment import registry as augmenters
from llmtune.data.augment import tokens
from llmtune.data.augment.variants import Variants
from llmtune.data.prepared import Prepared
from llmtune.models import checks
from llmtune.models.location import locate
from llmtune.objectives import registry as objectives
from llmtune.tasks.base import LossOf, Task
from llmtune.training import live_rows, optimizers, precision, run_dir


def prepare_variants(config: StageConfig, ready: Prepared) -> Prepared | None:
    """The variants of the train rows, from the cache if nothing has changed since; None if the config asks for none.

    Raises:
        ModelError: the model that is to write them is missing, unfit, or predicts no masked tokens.
    """
    settings = _contextual(config)
    if settings is None:
        return None
    directory = _masked_lm(settings.model)
    files = [file for file in sorted(directory.iterdir()) if file.suffix in (".json", ".safetensors", ".txt")]
    digests = [[file.name, _digest(file)] for file in files]
    key = {"variants_of": ready.directory.name, "model": digests, "settings": settings.model_dump(exclude={"model"})}

    def build(work: Path) -> dict[str, Any]:
        from llmtune.tasks.contextual import Rewriter, write_variants
        from llmtune.training.restore import restore

        compute = precision.choose(config.hardware, precision=config.hardware.precision, is_transformer=True)
        restored = restore(directory, task="masked_lm")
        fast = tokenizers.load(directory) if restored.tokenizer_dir else None
        how = {"settings": settings, "autocast": compute.autocast, "seed": config.seed}
        rewriter = Rewriter(restored.model.eval().to(compute.device), fast, **how)
        return write_variants(work, ready.splits["train"], rewriter, label_names=ready.meta["task"].get("label_names"))

    return prepared.open_or_build(key, build, cache_dir=cache_dir())


def install(config: StageConfig, ready: Prepared, variants: Prepared | None, task: Task, model: nn.Module) -> None:
    """Let the task change train rows as the config says, and the model learn those word vectors alone that can come up.

    Raises:
        ConfigError: tokens are to be hidden, and the tokenizer has none to hide them behind.
    """
    changes_texts = variants is not None or bool(augmenters.of_texts(config.augment))
    hidden_id = None
    if "input_ids" in ready.splits["train"].names and config.augment:
        text = task_text(task)
        if variants is not None:
            text.variants = Variants(variants.splits["train"], per_row=_contextual(config).num_variants)
        text.augmenter = augmenters.build(config.augment)
        _tell_lost_case(config, text.tokenizer)
        if config.task.type in ("classification", "regression"):
            hidden_id = _hidden_id(text.tokenizer)
            special_ids = text.tokenizer.all_special_ids
            text.token_augmenter = tokens.build(config.augment, special_ids=special_ids, hidden_id=hidden_id)
    # Else tokens come up that the rows do not hold.
    takes_rows = config.optimizer.type not in optimizers.NEED_WHOLE_MATRICES and not config.hardware.compile
    if takes_rows and not changes_texts and config.task.type != "masked_lm":
        also = [hidden_id] if tokens.hides(config.augment) else []
        live_rows.install(model, ready.splits["train"], pad_token_id=task.describe().get("pad_token_id"), also=also)


def loss_of(config: StageConfig, task: Task, model: nn.Module) -> LossOf:
    """What the stage makes small; after `install`, and before the model is compiled."""
    return objectives.build(task, model, augment=config.augment, objective=config.objective)


def task_text(task: Any) -> Any:
    """The text side of a task, wherever it keeps it."""
    return task.text if hasattr(task, "text") else task.inputs.text


def _tell_lost_case(config: StageConfig, tokenizer: Any) -> None:
    """An augmenter that changes letters' case alone does nothing to a tokenizer that is blind to it."""
    normalizer = tokenizer.backend_tokenizer.normalizer
    is_blind = normalizer is not None and normalizer.normalize_str("Ab") == normalizer.normalize_str("aB")
    for name, section in config.augment.items():
        if section.type == "casing" and is_blind:
            console.notice(f"augment.{name} changes nothing: the tokenizer lowers all letters; ~augment.{name} leaves it out")


def _contextual(config: StageConfig) -> Contextual | None:
    return next((section for section in config.augment.values() if isinstance(section, Contextual)), None)


def _masked_lm(name: str) -> Path:
    """The directory of a model that a run, a path, a package or the hub gives."""
    path = paths.resolve(name)
    if path.is_dir() and ((path / run_dir.CONFIG).is_file() or (path / "llmtune.json").is_file()):
        return run_dir.locate_checkpoint(path)
    directory = locate(name)
    checks.read_config(directory)
    return directory


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _hidden_id(tokenizer: Any) -> int | None:
    """The token that stands for a hidden one: never the one that fills up rows, by which models find the end of a text."""
    known = (tokenizer.mask_token_id, tokenizer.unk_token_id)
    return next((token for token in known if token is not None and token != tokenizer.pad_token_id), None)
