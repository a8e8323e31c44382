"""From a checkpoint or model directory back to a model, its task and its tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from torch import nn
from transformers import PreTrainedModel

from llmtune import paths, tuning
from llmtune.config.sections.model import ModelConfig
from llmtune.config.sections.tuning import ADAPTERS, FullTuning, QloraTuning, TuningConfig
from llmtune.data.clean import registry as cleaners
from llmtune.data.clean.registry import Cleaner
from llmtune.errors import CheckpointError, ModelError
from llmtune.models import adapters, gguf
from llmtune.models import registry as models
from llmtune.models.heads import new_weights
from llmtune.models.location import locate
from llmtune.models.spec import ModelSpec
from llmtune.tasks import registry as tasks
from llmtune.tasks.base import Task
from llmtune.training import checkpoint, manifest, run_dir
from llmtune.tuning import frozen, pissa, saved
from llmtune.tuning.adapters import has_virtual_tokens, round_off


@dataclass(frozen=True)
class Restored:
    """A model with what it was trained for.

    Attributes:
        model: on the CPU, adapters merged.
        directory: where it was read from.
        facts: llmtune.json: task, tokenizer facts, cleaning, tuning; and `thresholds`, if the decision was moved after
            training. Empty for a directory that llmtune did not write.
    """

    model: nn.Module
    directory: Path
    facts: dict[str, Any]

    @property
    def tokenizer_dir(self) -> Path | None:
        return self.directory if (self.directory / "tokenizer_config.json").is_file() else None

    def task(self) -> Task:
        """The task it was trained for.

        Raises:
            CheckpointError: the directory does not say.
        """
        if "task" not in self.facts:
            raise CheckpointError(
                "the directory does not say what the model was trained for",
                where=str(self.directory),
                remedy="name a run or an export of llmtune, or fine-tune the model first: llmtune finetune model.path=...",
            )
        return tasks.rebuild(self.facts["task"], self.tokenizer_dir)

    def before(self) -> tuple[ModelConfig, Callable[[], PreTrainedModel]]:
        """What training started from, and what builds it as a plain model."""
        config, spec, _ = _facts_of_base(self.facts)
        return config, partial(plain_start, config, spec)

    def cleaner(self) -> Cleaner:
        """What changed the texts that it was trained on; texts that it is to judge have to be changed alike.

        Raises:
            CheckpointError: this version knows no such cleaner.
        """
        try:
            return cleaners.rebuild(self.facts.get("clean", []))
        except ValueError:
            raise CheckpointError(
                "the texts were cleaned in a way that this version does not know",
                where=str(self.directory / "llmtune.json"),
                remedy="use a newer version of llmtune",
            ) from None


def restore(path: str | Path, *, which: str = "best", task: str | None = None) -> Restored:
    """Read a run, a checkpoint, a model directory, or a GGUF file.

    Args:
        path: of it.
        which: checkpoint of a run.
        task: that the model is wanted for; parts of the body that only its head reads are kept for it.

    Raises:
        CheckpointError: it is damaged, incomplete or no such thing.
        ModelError: its weights or config are unfit.
    """
    directory = _located(paths.resolve(str(path)), which)
    if (directory / manifest.NAME).is_file():
        checkpoint.verify(directory)
    facts = _facts(directory)
    if adapters.is_adapter(directory):
        return Restored(tuning.merged(_with_saved_adapter(directory, facts)), directory, facts)
    if (directory / checkpoint.LEARNED).is_file():
        return Restored(tuning.merged(_opened(directory, facts)), directory, facts)
    return Restored(models.load(directory, task=task), directory, facts)


def _located(path: Path, which: str) -> Path:
    file = path if gguf.is_gguf(path) else gguf.the_only_one(path) if path.is_dir() else None
    return gguf.as_directory(file) if file is not None else run_dir.locate_checkpoint(path, which)


def restore_opened(directory: Path) -> tuple[nn.Module, Path]:
    """The model of a checkpoint with its adapter apart, and the directory of the weights that the adapter belongs to.

    Raises:
        CheckpointError: it holds no adapter, or one on weights that do not lie anywhere.
    """
    facts = _facts(directory)
    if facts.get("tuning", {}).get("type") not in ADAPTERS or not (directory / checkpoint.LEARNED).is_file():
        raise CheckpointError("the model was trained without an adapter", where=str(directory), remedy="use export=huggingface")
    return _opened(directory, facts), _base_directory(facts)


def _base_directory(facts: dict[str, Any]) -> Path:
    config, spec, opened = _facts_of_base(facts)
    if config.type != "run":
        return locate(config.pretrained, config.revision)
    directory = run_dir.locate_checkpoint(paths.resolve(config.path))
    if not adapters.is_adapter(directory) and not (directory / checkpoint.LEARNED).is_file():
        return directory
    if start(config, spec, opened).load is None:
        raise CheckpointError(
            "the adapter was trained on the merged result of a run, which does not lie anywhere by itself",
            where=str(directory),
            remedy="export=huggingface writes the whole model",
        )
    return adapters.base_of(directory, config.base) if adapters.is_adapter(directory) else _base_directory(_facts(directory))


def _with_saved_adapter(directory: Path, facts: dict[str, Any]) -> nn.Module:
    """An adapter directory that llmtune wrote, on the model that it belongs to."""
    config = adapters.read_config(directory)
    if "task" not in facts:
        raise CheckpointError(
            "the adapter does not say what it was trained for",
            where=str(directory),
            remedy="fine-tune it first: llmtune finetune DIRECTORY ...",
        )
    spec = tasks.model_spec(facts["task"], facts["tokenizer"])
    below = models.adapt(models.load(adapters.base_of(directory, None), task=spec.task), spec)
    _round_off(below, facts)
    adapter, head = saved.split(checkpoint.read_tensors(directory / adapters.WEIGHTS))
    if not saved.take_head(below, head):
        raise ModelError("the head in the adapter does not fit its task", where=str(directory), remedy=saved.BELONGS)
    return saved.attach(below, config, adapter, where=str(directory))


def _round_off(below: PreTrainedModel, facts: dict[str, Any]) -> None:
    """Give the model below a saved adapter the numbers that it was trained on, if they had 4 bits."""
    if facts.get("tuning", {}).get("type") == "qlora":
        round_off(below, QloraTuning.model_validate(facts["tuning"], strict=False))


def _facts(directory: Path) -> dict[str, Any]:
    if not (directory / "llmtune.json").is_file():
        return {}
    facts = manifest.read_json(directory / "llmtune.json")
    if not (directory / checkpoint.THRESHOLDS).is_file():
        return facts
    moved = manifest.read_json(directory / checkpoint.THRESHOLDS)
    bias = {"label_bias": moved["label_bias"]} if any(moved["label_bias"]) else {}
    return {**facts, "task": {**facts["task"], **bias}, "thresholds": moved}


@dataclass(frozen=True)
class Start:
    """What a stage begins with.

    Attributes:
        base: the model with the task's head, not opened for training yet.
        load: puts the adapter that is to learn on into the opened model; None where there is none.
        told: what a user may want to know of it; empty for nothing.
    """

    base: PreTrainedModel
    load: Callable[[nn.Module], None] | None = None
    told: str = ""

    def open(self, opened: TuningConfig, *, max_length: int, packs: bool = False) -> nn.Module:
        """The model opened for training; see `tuning.apply`."""
        model = tuning.apply(self.base, opened, max_length=max_length, packs=packs)
        if self.load is not None:
            self.load(model)
        return model


def start(model: ModelConfig, spec: ModelSpec, opened: TuningConfig) -> Start:
    """The model that a stage starts from; new weights come from torch's global generator.

    The adapter of a run, or of a directory of peft's, learns on if the stage is opened as it was; else it is merged first.

    Raises:
        CheckpointError: the run is damaged, incomplete or no such thing.
        ModelError: weights or adapter are unfit, or it has virtual tokens, which cannot be merged.
    """
    found = _start(model, spec, opened)
    if spec.end_ids:
        found.base.generation_config.eos_token_id = list(spec.end_ids)
    return found


def plain_start(model: ModelConfig, spec: ModelSpec) -> PreTrainedModel:
    """The model that a stage starts from, whatever it learns: an adapter is merged. See `start`."""
    return start(model, spec, FullTuning(type="full")).base


def _start(model: ModelConfig, spec: ModelSpec, opened: TuningConfig) -> Start:
    if model.type != "run":
        return Start(models.build(model, spec))
    directory = run_dir.locate_checkpoint(paths.resolve(model.path))
    if adapters.is_adapter(directory):
        return _on_saved_adapter(directory, model.base, spec, opened)
    facts = _facts(directory)
    if (directory / checkpoint.LEARNED).is_file() and _goes_on(facts["tuning"], opened):
        return _on_own_adapter(directory, facts, spec)
    restored = restore(model.path, task=spec.task).model
    _require_plain(restored, directory)
    return Start(models.adapt(restored, spec))


def _goes_on(theirs: dict[str, Any], opened: TuningConfig) -> bool:
    """Whether two tunings open a model alike; dropout may differ."""
    ours = opened.model_dump(mode="json")
    return opened.type in ADAPTERS and all(theirs.get(key) == value for key, value in ours.items() if key != "dropout")


def _on_own_adapter(directory: Path, facts: dict[str, Any], spec: ModelSpec) -> Start:
    """The model below a checkpoint's adapter, with the head that was learned beside it, and the adapter."""
    if (directory / manifest.NAME).is_file():
        checkpoint.verify(directory)
    learned = tuning.learned_tensors(_opened(directory, facts))  # whose base is checked there
    adapter, head = saved.split({name: tensor.detach() for name, tensor in learned.items()})
    config, known, opened = _facts_of_base(facts)
    base = start(config, known, opened).base
    saved.take_head(base, head)

    def load(model: nn.Module) -> None:
        pissa.set_starts(model, adapter)
        for name, own in tuning.learned_tensors(model).items():
            if name in adapter:
                own.data.copy_(adapter[name])

    return Start(models.adapt(base, spec), load, f"the adapter of {directory} learns on")


def _on_saved_adapter(directory: Path, base: str | None, spec: ModelSpec, opened: TuningConfig) -> Start:
    config, where, facts = adapters.read_config(directory), str(directory), _facts(directory)
    known = tasks.model_spec(facts["task"], facts["tokenizer"]) if facts else spec
    below = models.adapt(models.load(adapters.base_of(directory, base), task=known.task), known)
    adapter, head = saved.split(checkpoint.read_tensors(directory / adapters.WEIGHTS))
    fits = not head or saved.take_head(below, head)
    below = models.adapt(below, spec)  # whose head stays if its labels are those of the task
    left_out = "" if fits else "; its head has another shape than the task asks for, and is left out"
    if saved.goes_on(below, config, adapter, opened):
        load = partial(saved.load, tensors=adapter, where=where)
        return Start(below, load, f"the adapter of {directory} learns on{left_out}")
    _round_off(below, facts)
    plain = saved.attach(below, config, adapter, where=where)
    _require_plain(plain, directory)
    merged, new = tuning.merged(plain), new_weights(below)
    merged._new_weights = new
    return Start(merged, told=f"the adapter of {directory} is merged into its model{left_out}")


def _require_plain(model: nn.Module, directory: Path) -> None:
    if has_virtual_tokens(model):
        raise ModelError(
            "the virtual tokens that the model was trained with cannot be merged into its weights",
            where=str(directory),
            remedy="go on with the same tuning, or start from the model that they were added to",
        )


def _opened(directory: Path, facts: dict[str, Any]) -> nn.Module:
    """A checkpoint of learned weights as it was trained: on top of the weights that it builds on."""
    config, spec, opened = _facts_of_base(facts)
    model = start(config, spec, opened).open(opened, max_length=spec.max_length)
    if frozen.digest(model) != facts["base_digest"]:
        raise CheckpointError(
            "the weights that this checkpoint builds on have changed",
            where=str(directory),
            remedy=f"bring back the original of {getattr(config, 'path', None) or getattr(config, 'pretrained', None)}",
        )
    checkpoint.load_learned(model, checkpoint.read_tensors(directory / checkpoint.LEARNED))
    return model


def _facts_of_base(facts: dict[str, Any]) -> tuple[ModelConfig, ModelSpec, TuningConfig]:
    """What a checkpoint of learned weights says of the model below, of its task, and of how it was opened."""
    told = {"base": None, **facts["model"]} if facts["model"]["type"] == "run" else facts["model"]  # older runs had no base
    config: ModelConfig = TypeAdapter(ModelConfig).validate_python(told, strict=False)
    opened: TuningConfig = TypeAdapter(TuningConfig).validate_python(facts["tuning"], strict=False)
    return config, tasks.model_spec(facts["task"], facts["tokenizer"]), opened
