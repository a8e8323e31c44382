"""Adapters by peft: small weights beside those of a model, which stay as they are."""

import logging
import warnings
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmtune.config.sections.tuning import Ia3Tuning, LowRank, QloraTuning, TuningConfig, Virtual
from llmtune.errors import ConfigError, ModelError, ResourceError
from llmtune.failures import first_words
from llmtune.models import first_token
from llmtune.models.heads import KINDS, new_weights, task_of
from llmtune.tuning import four_bit, pissa
from llmtune.tuning.heads import open_beside_adapters

# What peft calls the kinds of heads for which it has virtual tokens.
VIRTUAL_TASKS = {"classification": "SEQ_CLS", "tagging": "TOKEN_CLS", "causal_lm": "CAUSAL_LM"}
OTHER = "use tuning=lora, or another model"

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it where it is; it speaks of kernels on the hub


def add(model: PreTrainedModel, tuning: TuningConfig, *, max_length: int, packs: bool) -> nn.Module:
    """Wrap a model in peft's; see `tuning.apply`."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise ResourceError(f"tuning={tuning.type} needs the package peft", remedy="pip install 'llmtune[lora]'") from None
    # Opened in place: peft's modules_to_save would keep a frozen copy of a head that no one can draw again.
    opened = {id(model.get_parameter(name)) for name in open_beside_adapters(model)}
    if isinstance(tuning, LowRank):
        config = low_rank_config(model, tuning)
        if tuning.type == "qlora" and packs:
            four_bit.hold(model, _linear_layers(model), tuning)
        elif tuning.type == "qlora":
            round_off(model, tuning)
        wrapped = wrap(model, config)
        if tuning.type == "pissa":
            pissa.begin(wrapped)
    elif isinstance(tuning, Ia3Tuning):
        wrapped = wrap(model, _ia3_config(model, tuning))
    else:
        wrapped = _with_virtual_tokens(model, tuning, max_length)
    for parameter in wrapped.parameters():
        if id(parameter) in opened:
            parameter.requires_grad_(True)
    return wrapped


def is_wrapped(model: nn.Module) -> bool:
    """Whether a model is one of peft's around another one."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def has_virtual_tokens(model: nn.Module) -> bool:
    return is_wrapped(model) and model.active_peft_config.is_prompt_learning


def round_off(model: PreTrainedModel, tuning: QloraTuning) -> None:
    """Give a model the numbers that an adapter of `tuning=qlora` belongs to."""
    four_bit.round_off(model, _linear_layers(model), tuning)


def low_rank_config(model: PreTrainedModel, tuning: LowRank) -> Any:
    """peft's config of low-rank updates for a model.

    Raises:
        ConfigError: the model has no linear layer, or none of a name.
    """
    from peft import LoraConfig

    linear = _linear_layers(model)
    targets = [name for name in linear if tuning.target_modules is None or _is_named(name, tuning.target_modules)]
    _require(linear, "target_modules", tuning.target_modules, targets)
    return LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=targets,
        use_dora=tuning.type == "dora",
        use_rslora=tuning.type == "rslora",
        fan_in_fan_out=_fans_in(model, targets),
    )


def _ia3_config(model: PreTrainedModel, tuning: Ia3Tuning) -> Any:
    from peft import IA3Config
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as FEEDFORWARD
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as TARGETS

    kind = model.config.model_type
    wanted, inner = tuning.target_modules or TARGETS.get(kind), tuning.feedforward_modules or FEEDFORWARD.get(kind, ())
    if wanted is None:
        problem = f"peft does not know which layers of the architecture {kind} to scale: name them, of"
        raise ConfigError([f"tuning.target_modules: {problem} {_known(_linear_layers(model))}"])
    linear = _linear_layers(model)
    targets = [name for name in linear if _is_named(name, wanted)]
    _require(linear, "target_modules", tuning.target_modules, targets)
    scaled_before = [name for name in targets if _is_named(name, inner)]
    _require(targets, "feedforward_modules", tuning.feedforward_modules, targets)
    return IA3Config(target_modules=targets, feedforward_modules=scaled_before, fan_in_fan_out=_fans_in(model, targets))


def _with_virtual_tokens(model: PreTrainedModel, tuning: Virtual, max_length: int) -> nn.Module:
    from peft import PrefixTuningConfig, PromptTuningConfig

    _require_room(model, tuning, max_length)
    task = virtual_task(model)
    shape = _shape(model)
    if tuning.type == "prompt":
        if task == "SEQ_CLS" and _ends_by_padding(model):
            message = f"tuning=prompt would hide from {type(model).__name__} where a text ends"
            raise ModelError(message, remedy="use tuning=prefix")
        shape["token_dim"] = model.get_input_embeddings().embedding_dim  # ELECTRA's is another one than that of its layers
        config = PromptTuningConfig(
            task_type=task, num_virtual_tokens=tuning.num_virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB", **shape
        )
    else:
        config = PrefixTuningConfig(
            task_type=task,
            num_virtual_tokens=tuning.num_virtual_tokens,
            prefix_projection=tuning.projection_size is not None,
            encoder_hidden_size=tuning.projection_size,
            **shape,
        )
    try:
        return wrap_virtual(model, config)
    except (ValueError, KeyError, NotImplementedError) as e:
        message = f"tuning={tuning.type}: peft cannot do this with {model.config.model_type}: {first_words(e)}"
        raise ModelError(message, remedy=OTHER) from None


def wrap_virtual(model: PreTrainedModel, config: Any) -> nn.Module:
    """peft's model with virtual tokens around ours, whose head stays the one that it is."""
    from peft.utils import ModulesToSaveWrapper

    if config.peft_type == "PREFIX_TUNING":
        first_token.uninstall(model)  # whose last layer would not see the keys and values that are added
    wrapped = wrap(model, config)
    for name, module in list(wrapped.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, child = name.rpartition(".")
            setattr(wrapped.get_submodule(parent), child, module.original_module)
    if config.peft_type == "PROMPT_TUNING" and config.task_type != "SEQ_CLS":
        head = wrapped.get_output_embeddings() if config.task_type == "CAUSAL_LM" else wrapped.get_base_model().classifier
        head.register_forward_pre_hook(partial(_without_virtual, config.num_virtual_tokens))
    return wrapped


def virtual_task(model: PreTrainedModel) -> str:
    """What peft calls the kind of a model's head.

    Raises:
        ModelError: it has no virtual tokens for this kind.
    """
    task = VIRTUAL_TASKS.get(KINDS.get(task_of(model) or "", ""))
    if task is None:
        raise ModelError("peft has no virtual tokens for the task of this model", remedy=OTHER)
    return task


def _without_virtual(number: int, _: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let a head that answers for each token [B, L, H] see the real ones alone."""
    return (given[0][:, number:], *given[1:])


def _require_room(model: PreTrainedModel, tuning: Virtual, max_length: int) -> None:
    """Beside the virtual tokens, the longest text has to fit into the model's window."""
    window = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    positions = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if window is not None and getattr(positions, "padding_idx", None) is not None:  # RoBERTa counts from behind it
        window -= positions.padding_idx + 1
    number = tuning.num_virtual_tokens
    if window is not None and max_length + number > window:
        fits = f"set tokenizer.max_length={window - number}, or fewer tokens" if window > number else "set fewer"
        raise ConfigError(
            [
                f"tuning.num_virtual_tokens: {number} virtual tokens and texts of up to {max_length} do not fit into the "
                f"{window} positions of the model: {fits}"
            ]
        )


def _ends_by_padding(model: PreTrainedModel) -> bool:
    """Whether a classifier reads the last token of a text, which it finds by the ids that virtual tokens do not have."""
    return task_of(model) is not None and not hasattr(model, "classifier") and hasattr(model, "score")


def _shape(model: PreTrainedModel) -> dict[str, int]:
    """Sizes that peft asks for under names of its own where it does not find them."""
    config = model.config
    if config.model_type != "distilbert":
        return {}
    return {"token_dim": config.dim, "num_attention_heads": config.n_heads, "num_layers": config.n_layers}


def wrap(model: PreTrainedModel, config: Any) -> nn.Module:
    """peft's model around ours."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what peft asks it
        return get_peft_model(model, config)


def _fans_in(model: PreTrainedModel, targets: list[str]) -> bool:
    return any(isinstance(model.get_submodule(name), Conv1D) for name in targets)


def _require(linear: list[str], key: str, wanted: tuple[str, ...] | None, targets: list[str]) -> None:
    """Each name that a user gives has to be that of a layer; and there has to be one at all."""
    unknown = [name for name in wanted or () if not any(_is_named(layer, [name]) for layer in linear)]
    if unknown or not targets:
        problem = f"there is no linear layer '{unknown[0]}'" if unknown else "the model has no linear layers to update"
        raise ConfigError([f"tuning.{key}: {problem}; there are: {_known(linear)}"])


def _known(linear: list[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in linear})) or "none"


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
