"""BERT, GPT-2 and every other encoder and causal model of transformers: from scratch, and directories that hold them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, BertConfig, GPT2Config, PretrainedConfig, PreTrainedModel

from llmtune import console
from llmtune.config.sections.model import TransformerModel
from llmtune.errors import ConfigError, ModelError, ResourceError
from llmtune.failures import first_words, loaded
from llmtune.models import checks, first_token, heads
from llmtune.models.spec import ModelSpec

SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768)}  # layers, width
HEAD_WIDTH = 64

T = TypeVar("T")


def from_scratch(model: TransformerModel, spec: ModelSpec) -> PreTrainedModel:
    """A new BERT or GPT-2.

    Raises:
        ConfigError: the width is no multiple of the number of heads.
        ResourceError: the attention kernel needs a package that is not installed.
    """
    layers, width = SIZES[model.size]
    layers, width = model.num_layers or layers, model.hidden_size or width
    num_heads = model.num_heads or max(1, width // HEAD_WIDTH)
    if width % num_heads:
        raise ConfigError([f"model.hidden_size: {width} cannot be shared among model.num_heads={num_heads}"])
    dropout = 0.1 if model.dropout is None else model.dropout
    config = (_bert if model.type == "bert" else _gpt)(spec, layers, width, num_heads, dropout)
    heads.set_labels(config, spec)
    cls = heads.class_for(config, spec.task)
    made = _with_attention(model.attention, lambda kind: cls._from_config(config, attn_implementation=kind))
    heads.start_at_mean(made, spec)
    first_token.install(made)
    return made


def read(directory: Path, *, task: str | None = None, dropout: float | None = None, attention: str = "auto") -> PreTrainedModel:
    """The model that a directory holds, as the class that its config names, in float32 and eval mode.

    Where the head of that class is not the one of a task, the body alone.

    Args:
        directory: of `save_pretrained`.
        task: that the model is to be adapted to; None: it stays what it is.
        dropout: instead of what the config says.
        attention: kernel, or 'auto'.

    Raises:
        ModelError: anything is missing, damaged, of another shape, or would run code.
        ConfigError: the architecture has no such attention kernel.
        ResourceError: the kernel needs a package that is not installed.
    """
    raw = checks.read_config(directory)
    where = str(directory)
    config = _config(raw, directory)
    if dropout is not None:
        _set_dropout(config, dropout)
    names = raw.get("architectures")
    cls = heads.class_named(config, names[0] if isinstance(names, list) and names else None, task=task)

    def load(kind: str | None) -> tuple[PreTrainedModel, dict[str, Any]]:
        return cls.from_pretrained(
            directory,
            config=config,
            attn_implementation=kind,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # transformers would only say so; `judge` refuses
            output_loading_info=True,
            dtype="float32",
        )

    is_own = config.model_type in heads.OWN
    made, info = _loaded(lambda: load("eager") if is_own else _with_attention(attention, load), where)
    judge(made, info, where)
    first_token.install(made)
    return made.eval()


def judge(made: PreTrainedModel, info: dict[str, Any], where: str) -> None:
    """Every weight of the model must come from the file; of what else the file holds, only the body's own is refused.

    A body without a head may lack the weights of its pooler: it loses the pooler, and `adapt` draws one if a head reads it.
    """
    remedy = "config.json and the weights do not belong together: copy or download both again"
    if mismatched := sorted(info["mismatched_keys"]):
        name, theirs, ours = mismatched[0]
        message = f"{name} is {tuple(theirs)} in the file, but the config asks for {tuple(ours)}"
        raise ModelError(message, where=where, remedy=remedy)
    missing = sorted(info["missing_keys"])
    if missing and made.base_model is made and all(name.startswith(f"{heads.POOLER}.") for name in missing):
        setattr(made, heads.POOLER, None)
        missing = []
    if missing:
        raise ModelError(f"{_counted(missing, 'is', 'are')} missing: {_few(missing)}", where=where, remedy=remedy)
    unexpected = sorted(info["unexpected_keys"])
    if odd := [name for name in unexpected if _is_of_body(name, made)]:
        raise ModelError(f"{_counted(odd, 'has', 'have')} no place in the model: {_few(odd)}", where=where, remedy=remedy)
    if unexpected:
        console.notice(f"left out of {where}: {_few(unexpected)}")


def _bert(spec: ModelSpec, layers: int, width: int, num_heads: int, dropout: float) -> PretrainedConfig:
    return BertConfig(
        vocab_size=spec.vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * width,
        max_position_embeddings=spec.max_length,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=spec.pad_token_id,
    )


def _gpt(spec: ModelSpec, layers: int, width: int, num_heads: int, dropout: float) -> PretrainedConfig:
    return GPT2Config(
        vocab_size=spec.vocab_size,
        n_embd=width,
        n_layer=layers,
        n_head=num_heads,
        n_positions=spec.max_length,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own gelu_new, as one operator instead of eight
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        pad_token_id=spec.pad_token_id,
        bos_token_id=spec.bos_token_id,
        eos_token_id=spec.eos_token_id,
    )


def _config(raw: dict[str, Any], directory: Path) -> PretrainedConfig:
    model_type = raw.get("model_type")
    if isinstance(model_type, str) and model_type in heads.OWN:
        return _loaded(lambda: heads.OWN[model_type][0].from_dict(raw), str(directory))
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        message = f"transformers {transformers.__version__} has no architecture {model_type!r} (model_type of config.json)"
        remedy = "use a newer transformers, or a model of an architecture that it has"
        raise ModelError(message, where=str(directory), remedy=remedy)
    load = partial(AutoConfig.from_pretrained, directory, local_files_only=True, trust_remote_code=False)
    return _loaded(load, str(directory))


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("_pdrop")) and type(value) in (int, float):
            setattr(config, name, dropout)


def _is_of_body(name: str, made: PreTrainedModel) -> bool:
    """Whether a weight that the model has no place for belongs to its body; poolers and stored positions may be left out."""
    prefix, parts = made.base_model_prefix, name.split(".")
    inner = parts[1:] if parts[0] == prefix else parts
    is_within = parts[0] == prefix or parts[0] in dict(made.base_model.named_children())
    return is_within and inner[0] != heads.POOLER and "position_ids" not in name


def _counted(names: list[str], one: str, many: str) -> str:
    return f"1 weight {one}" if len(names) == 1 else f"{len(names)} weights {many}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _with_attention(wanted: str, make: Callable[[str], T]) -> T:
    if wanted != "auto":
        try:
            return make(wanted)
        except ImportError as e:
            remedy = "install it, or use model.attention=auto"
            raise ResourceError(f"model.attention={wanted}: {first_words(e)}", remedy=remedy) from None
        except ValueError as e:
            if "attn_implementation" not in str(e):
                raise
            raise ConfigError([f"model.attention: the architecture has no {wanted}: use model.attention=auto"]) from None
    try:
        return make("sdpa")
    except ValueError:  # the architecture has no SDPA
        return make("eager")


def _loaded(load: Callable[[], T], where: str) -> T:
    return loaded(load, "the model cannot be loaded", where=where, remedy=checks.SAVED)
