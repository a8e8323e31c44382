"""Adapters as peft saves them: put on top of their model, learned on, and written from ours."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmtune.config.sections.tuning import LowRank, TuningConfig
from llmtune.errors import ModelError
from llmtune.failures import first_words
from llmtune.tuning import adapters, pissa, places

BELONGS = "name the weights that the adapter was trained on: model.base=..."
MERGE = "merge it into its model with peft, and name that model"
# What an adapter_config.json may set, for each kind; all else has to be as peft leaves it.
COMMON = {"peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version", "modules_to_save"}
LOW_RANK = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "use_rslora", "use_dora",
    "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "init_lora_weights",
}  # fmt: skip
SHAPE = {"num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"}
KNOWN = {
    "LORA": LOW_RANK,
    "IA3": {"target_modules", "exclude_modules", "feedforward_modules", "fan_in_fan_out", "init_ia3_weights"},
    "PREFIX_TUNING": SHAPE | {"encoder_hidden_size", "prefix_projection"},
    "PROMPT_TUNING": SHAPE | {"prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"},
}
PREFIXES = ("base_model.model.", "base_model.")  # before a weight's name in a model that peft wraps


def split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of an adapter, and those saved with it, such as a head's, by their names in the plain model."""
    own = {name: tensor for name, tensor in tensors.items() if is_of_adapter(name)}
    return own, {plain_name(name): tensor for name, tensor in tensors.items() if name not in own}


def is_of_adapter(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] in pissa.STARTS or name == "prompt_embeddings" or any(p.startswith(places.ADAPTER_NAMES) for p in parts)


def plain_name(name: str) -> str:
    """The name that a weight has in the model that peft wraps."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def take_head(model: PreTrainedModel, head: dict[str, Tensor]) -> bool:
    """Copy trained weights into a model, if all of them have a place and their shape there; whether that is so."""
    parameters = dict(model.named_parameters())
    if any(name not in parameters or parameters[name].shape != tensor.shape for name, tensor in head.items()):
        return False
    for name, tensor in head.items():
        parameters[name].data.copy_(tensor)
    model._new_weights = frozenset(getattr(model, "_new_weights", ())) - head.keys()
    return True


def attach(model: PreTrainedModel, config: dict[str, Any], tensors: dict[str, Tensor], *, where: str) -> nn.Module:
    """Put a saved adapter on the model that it belongs to.

    Args:
        model: with its head.
        config: adapter_config.json.
        tensors: those of the adapter alone (`split`).
        where: the directory, for messages.

    Raises:
        ModelError: the adapter does something that is not known, or belongs to another model.
    """
    import peft

    kind = config["peft_type"]
    make = {
        "LORA": peft.LoraConfig,
        "IA3": peft.IA3Config,
        "PREFIX_TUNING": peft.PrefixTuningConfig,
        "PROMPT_TUNING": peft.PromptTuningConfig,
    }[kind]
    usual = make().to_dict()
    odd = [k for k, v in config.items() if k not in COMMON | KNOWN[kind] and v not in (usual.get(k), None, False, [], {})]
    if odd:
        raise ModelError(f"the adapter has {odd[0]}={config[odd[0]]!r}, which is not known here", where=where, remedy=MERGE)
    facts = {key: config[key] for key in KNOWN[kind] & config.keys()}
    began = {"init_lora_weights": True, "prompt_tuning_init": "RANDOM", "prefix_projection": False}
    facts |= {key: began[key] for key in began.keys() & facts.keys()}  # how it began, and what made it, no longer matter
    try:
        if kind in ("LORA", "IA3"):
            wrapped = adapters.wrap(model, make(**facts))
        else:
            wrapped = adapters.wrap_virtual(model, make(**facts, task_type=adapters.virtual_task(model)))
    except (ValueError, KeyError, TypeError, NotImplementedError) as e:
        raise ModelError(f"the adapter does not fit the model: {first_words(e)}", where=where, remedy=BELONGS) from None
    load(wrapped, tensors, where=where)
    return wrapped


def load(model: nn.Module, tensors: dict[str, Tensor], *, where: str) -> None:
    """Copy the tensors of a saved adapter into a model that was opened as it was.

    Raises:
        ModelError: tensors are missing, too many, or of other shapes.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    wanted = {name: t for name, t in get_peft_model_state_dict(model).items() if is_of_adapter(name)}
    missing, odd = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or odd:
        names, what = (missing, "missing from the adapter") if missing else (odd, "without a place in the model")
        told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise ModelError(f"the adapter does not fit the model: {what}: {told}", where=where, remedy=BELONGS)
    for name, own in wanted.items():
        if own.shape != tensors[name].shape:
            message = f"{name} is {tuple(tensors[name].shape)} in the adapter, but the model asks for {tuple(own.shape)}"
            raise ModelError(message, where=where, remedy=BELONGS)
    set_peft_model_state_dict(model, tensors)


def goes_on(model: PreTrainedModel, config: dict[str, Any], tensors: dict[str, Tensor], tuning: TuningConfig) -> bool:
    """Whether a tuning opens a model just as a saved adapter does, so that the adapter itself can learn on."""
    if not isinstance(tuning, LowRank) or tuning.type == "pissa" or config["peft_type"] != "LORA":
        return False
    ours = adapters.low_rank_config(model, tuning)
    same = all(config.get(key, False) == getattr(ours, key) for key in ("r", "lora_alpha", "use_dora", "use_rslora"))
    tuned = {plain_name(name).removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")}
    is_plain = not config.get("rank_pattern") and not config.get("alpha_pattern") and config.get("bias", "none") == "none"
    return same and is_plain and tuned == set(ours.target_modules)


def described(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """An opened model's adapter as adapter_config.json and tensors: what peft puts on the weights that training began with.

    PiSSA's update is told as what it has added since its start, of twice the rank: A and its start on top of each other, B
    and its start with the sign turned beside each other.
    """
    from peft import get_peft_model_state_dict

    config = model.peft_config[pissa.ADAPTER]
    facts = config.to_dict() | {"inference_mode": True}
    tensors = {name: t for name, t in get_peft_model_state_dict(model).items() if is_of_adapter(name)}
    starts = pissa.starts(model)
    for name in {name.rpartition(".")[0] for name in starts}:
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        tensors[a] = torch.cat([tensors[a], starts[f"{name}.start_A"]])
        tensors[b] = torch.cat([tensors[b], -starts[f"{name}.start_B"]], dim=1)
    if starts:
        facts |= {"r": 2 * config.r, "lora_alpha": 2 * config.lora_alpha}
    beside = {name: p for name, p in model.named_parameters() if p.requires_grad and not is_of_adapter(name)}
    modules = {plain_name(name).rpartition(".")[0] for name in beside}
    facts["modules_to_save"] = sorted(_outermost(model, modules)) or None
    return _jsonable(facts), {name: t.detach().contiguous().cpu() for name, t in {**tensors, **beside}.items()}


def _outermost(model: nn.Module, modules: set[str]) -> set[str]:
    """Modules of the head by the name under which peft wraps the whole head; those of the body as they are."""
    plain = model.get_base_model()
    return {module if module.startswith(f"{plain.base_model_prefix}.") else module.split(".")[0] for module in modules}


def _jsonable(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in facts.items()
        if isinstance(value, set | str | int | float | bool | list | dict | tuple | None) or hasattr(value, "value")
    }
