"""How weights are opened for training: all of them, the head alone, or low-rank updates."""

from torch import nn

from llmtune.config.sections.model import TuningConfig
from llmtune.errors import ConfigError, ResourceError


def apply(model: nn.Module, tuning: TuningConfig) -> nn.Module:
    """Decide by `requires_grad` which weights learn; LoRA wraps the model.

    Raises:
        ConfigError: the model has no head of its own, or no layer of a name.
        ResourceError: peft is not installed.
    """
    if tuning.type == "full":
        return model
    if tuning.type == "head":
        head = head_parameters(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in head)
        return model
    return _lora(model, tuning)


def merged(model: nn.Module) -> nn.Module:
    """The plain model: low-rank updates added to the weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def head_parameters(model: nn.Module) -> set[str]:
    """Names of the weights outside the base model.

    Raises:
        ConfigError: the head shares its weights with the embedding.
    """
    base = {id(p) for p in model.base_model.parameters()}
    head = {name for name, p in model.named_parameters() if id(p) not in base}
    if not head:
        raise ConfigError(["tuning: the head of this model shares its weights with the embedding: use tuning=full or lora"])
    return head


def _lora(model: nn.Module, tuning: TuningConfig) -> nn.Module:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ResourceError("tuning=lora needs the package peft", remedy="pip install 'llmtune[lora]'") from None
    linear = {name for name, module in model.base_model.named_modules() if isinstance(module, nn.Linear)} | {
        name for name, module in model.base_model.named_modules() if type(module).__name__ == "Conv1D"
    }
    endings = {name.rsplit(".", 1)[-1] for name in linear}
    unknown = [name for name in tuning.target_modules or () if name not in endings and name not in linear]
    if unknown:
        raise ConfigError([f"tuning.target_modules: there is no linear layer '{unknown[0]}'; there are: {', '.join(sorted(endings))}"])
    is_language_model = not hasattr(model, "num_labels") or type(model).__name__.endswith(("LM", "LMHeadModel"))
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=list(tuning.target_modules) if tuning.target_modules else "all-linear",
        modules_to_save=None if is_language_model else _head_modules(model),
        task_type=None if is_language_model else "SEQ_CLS",
    )
    return get_peft_model(model, config)


def _head_modules(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_children() if name != model.base_model_prefix and list(module.parameters())]
