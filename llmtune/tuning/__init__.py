"""How weights are opened for training: all of them, the head alone, or low-rank updates."""

import warnings

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

from llmtune.config.sections.model import LoraTuning, TuningConfig
from llmtune.errors import ConfigError, ResourceError
from llmtune.models.heads import TASKS, new_weights, task_of

HEADED = (*TASKS["classification"], *TASKS["tagging"])  # tasks that bring a head of their own


def apply(model: PreTrainedModel, tuning: TuningConfig) -> nn.Module:
    """Decide by `requires_grad` which weights learn; LoRA wraps the model. What has just been drawn always learns.

    Raises:
        ConfigError: the model has no head of its own, or no layer of a name.
        ResourceError: peft is not installed.
    """
    if tuning.type == "full":
        return model
    if tuning.type == "head":
        learned = head_parameters(model) | new_weights(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in learned)
        return model
    return _lora(model, tuning)


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model: low-rank updates added to the weights, and every weight open again that its architecture opens."""
    plain = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    with torch.device("meta"), no_init_weights():
        untouched = type(plain)(plain.config)
    learns = {name: parameter.requires_grad for name, parameter in untouched.named_parameters()}
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(learns[name])
    return plain


def head_parameters(model: PreTrainedModel) -> set[str]:
    """Names of the weights outside the base model.

    Raises:
        ConfigError: the head shares its weights with the embedding.
    """
    base = {id(p) for p in model.base_model.parameters()}
    head = {name for name, p in model.named_parameters() if id(p) not in base}
    if not head:
        raise ConfigError(["tuning: the head of this model shares its weights with the embedding: use tuning=full or lora"])
    return head


def _lora(model: PreTrainedModel, tuning: LoraTuning) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ResourceError("tuning=lora needs the package peft", remedy="pip install 'llmtune[lora]'") from None
    linear = _linear_layers(model)
    targets = [name for name in linear if tuning.target_modules is None or _is_named(name, tuning.target_modules)]
    unknown = [wanted for wanted in tuning.target_modules or () if not any(_is_named(name, [wanted]) for name in linear)]
    if unknown or not targets:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"
        wanted = f"there is no linear layer '{unknown[0]}'" if unknown else "the model has no linear layers to update"
        raise ConfigError([f"tuning.target_modules: {wanted}; there are: {known}"])
    # Opened in place: peft's modules_to_save would keep a frozen copy of a head that no one can draw again.
    open_too = new_weights(model) | (head_parameters(model) if task_of(model) in HEADED else set())
    opened = {id(model.get_parameter(name)) for name in open_too}
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in targets),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what peft asks it
        wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if id(parameter) in opened:
            parameter.requires_grad_(True)
    return wrapped


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers of the body that were trained before; GPT-2 has its own class for them."""
    body, drawn = set(model.base_model.modules()), new_weights(model)
    return [
        name
        for name, module in model.named_modules()
        if module in body and isinstance(module, nn.Linear | Conv1D) and f"{name}.weight" not in drawn
    ]


def _is_named(name: str, wanted: list[str] | tuple[str, ...]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for ending in wanted)
