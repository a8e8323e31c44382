"""BERT, GPT-2 and every other encoder and causal model of transformers: from scratch, and directories that hold them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from transformers import AutoConfig, BertConfig, GPT2Config, PretrainedConfig, PreTrainedModel

from llmtune import console
from llmtune.config.sections.model import TransformerModel
from llmtune.errors import ConfigError, ModelError
from llmtune.models import checks, heads
from llmtune.models.spec import ModelSpec

SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768)}  # layers, width
HEAD_WIDTH = 64
# Of a hub repository: neither pickles nor scripts are fetched.
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]

T = TypeVar("T")


def from_scratch(model: TransformerModel, spec: ModelSpec) -> PreTrainedModel:
    """A new BERT or GPT-2.

    Raises:
        ConfigError: the width is no multiple of the number of heads.
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
    return made


def read(directory: Path, *, dropout: float | None = None, attention: str = "auto") -> PreTrainedModel:
    """The model that a directory holds, as the class that its config names, in float32 and eval mode.

    Args:
        directory: of `save_pretrained`.
        dropout: instead of what the config says.
        attention: kernel, or 'auto'.

    Raises:
        ModelError: anything is missing, damaged, of another shape, or would run code.
    """
    raw = checks.read_config(directory)
    where = str(directory)
    config = _config(raw, directory)
    if dropout is not None:
        _set_dropout(config, dropout)
    cls = heads.class_named(config, (raw.get("architectures") or [None])[0])

    def load(kind: str | None) -> tuple[PreTrainedModel, dict[str, Any]]:
        return cls.from_pretrained(
            directory,
            config=config,
            attn_implementation=kind,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # transformers would only say so; `_judge` refuses
            output_loading_info=True,
            dtype="float32",
        )

    is_own = config.model_type in heads.OWN
    made, info = _guarded(lambda: load("eager") if is_own else _with_attention(attention, load), where)
    _judge(cls, info, where)
    return made.eval()


def download(name: str, revision: str | None) -> Path:
    """A model of the hub as a directory of the local cache.

    Raises:
        ModelError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    remedy = "check the name and the network, or name a local directory; HF_HUB_OFFLINE=1 uses what was downloaded before"
    return Path(_guarded(lambda: snapshot_download(name, revision=revision, allow_patterns=HUB_FILES), name, remedy))


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
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        pad_token_id=spec.pad_token_id,
        bos_token_id=spec.bos_token_id,
        eos_token_id=spec.eos_token_id,
    )


def _config(raw: dict[str, Any], directory: Path) -> PretrainedConfig:
    model_type = raw.get("model_type")
    if model_type in heads.OWN:
        return _guarded(lambda: heads.OWN[model_type][0].from_dict(raw), str(directory))
    return _guarded(lambda: AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False), str(directory))


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, int | float):
            setattr(config, name, dropout)


def _judge(cls: type[PreTrainedModel], info: dict[str, Any], where: str) -> None:
    """Every weight of the class must come from the file; of what else the file holds, only the body's own is refused."""
    if mismatched := list(info.get("mismatched_keys", ())):
        name, theirs, ours = mismatched[0]
        raise ModelError(f"{name} is {tuple(theirs)} in the file, but the config asks for {tuple(ours)}", where=where)
    pooler = f"{cls.base_model_prefix}.pooler."
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{len(missing)} weights are missing: {_few(missing)}", where=where, remedy="copy or download it again")
    unexpected = sorted(info["unexpected_keys"])
    odd = [n for n in unexpected if n.startswith(f"{cls.base_model_prefix}.") and not n.startswith(pooler) and "position_ids" not in n]
    if odd:
        raise ModelError(f"{len(odd)} weights have no place in the model: {_few(odd)}", where=where)
    if unexpected:
        console.notice(f"left out of {where}: {_few(unexpected)}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _with_attention(wanted: str, make: Callable[[str], T]) -> T:
    if wanted != "auto":
        return make(wanted)
    try:
        return make("sdpa")
    except ValueError:  # the architecture has no SDPA
        return make("eager")


def _guarded(load: Callable[[], T], where: str, remedy: str | None = None) -> T:
    """What goes wrong in a library as a ModelError: they raise whatever lies beneath."""
    try:
        return load()
    except MemoryError:
        raise
    except Exception as e:
        told = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise ModelError(f"cannot be loaded: {told}", where=where, remedy=remedy) from None
