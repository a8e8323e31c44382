"""BERT, GPT-2 and every other encoder and causal model of transformers, from scratch or from weights."""

from pathlib import Path
from typing import Any

from torch import nn

from llmtune import console
from llmtune.config.sections.model import TransformerModel
from llmtune.errors import ConfigError, ModelError
from llmtune.models import checks
from llmtune.models.spec import ModelSpec

SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512), "base": (12, 768)}  # layers, width
HEAD_WIDTH = 64

# The classes of the commonest architectures: importing one module is 2 s faster than the Auto classes, which import all.
CLASSES = {
    "bert": ("bert.modeling_bert", {"classification": "BertForSequenceClassification", "masked_lm": "BertForMaskedLM"}),
    "gpt2": ("gpt2.modeling_gpt2", {"classification": "GPT2ForSequenceClassification", "causal_lm": "GPT2LMHeadModel"}),
}


def from_scratch(model: TransformerModel, spec: ModelSpec) -> nn.Module:
    """A new BERT or GPT-2.

    Raises:
        ConfigError: the width is no multiple of the number of heads.
    """
    layers, width = SIZES[model.size]
    layers, width = model.num_layers or layers, model.hidden_size or width
    heads = model.num_heads or max(1, width // HEAD_WIDTH)
    if width % heads:
        raise ConfigError([f"model.hidden_size: {width} cannot be shared among model.num_heads={heads}"])
    dropout = 0.1 if model.dropout is None else model.dropout
    if model.type == "bert":
        from transformers import BertConfig

        config = BertConfig(
            vocab_size=spec.vocab_size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=spec.max_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    else:
        from transformers import GPT2Config

        config = GPT2Config(
            vocab_size=spec.vocab_size,
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            n_positions=spec.max_length,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
        )
    _set_task(config, spec)
    config.bos_token_id, config.eos_token_id = spec.bos_token_id, spec.eos_token_id
    made = _with_attention(model.attention, lambda kind: model_class(config, spec.task)._from_config(config, attn_implementation=kind))
    return with_head_bias(made, spec)


def from_weights(model: TransformerModel, located: Path | str, spec: ModelSpec) -> nn.Module:
    """Weights with a head for the task; a head that is new is told.

    Raises:
        ModelError: weights are missing, of another shape, or of an architecture that cannot do the task.
    """
    from transformers import AutoConfig

    if isinstance(located, Path):
        checks.read_config(located)
    config = _load(lambda: AutoConfig.from_pretrained(located, revision=model.revision, trust_remote_code=False), located)
    _set_task(config, spec)
    if model.dropout is not None:
        for name, value in config.to_dict().items():
            if ("dropout" in name or name.endswith("_pdrop")) and isinstance(value, float):
                setattr(config, name, model.dropout)

    def load(kind: str | None) -> tuple[nn.Module, dict[str, Any]]:
        return model_class(config, spec.task).from_pretrained(
            located,
            config=config,
            revision=model.revision,
            attn_implementation=kind,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype="float32",
        )

    made, info = _load(lambda: _with_attention(model.attention, load), located)
    judge_loading(made, info, str(located))
    if spec.vocab_size > made.get_input_embeddings().num_embeddings:
        raise ModelError(
            f"the tokenizer has {spec.vocab_size:,} entries, the model's embedding {made.get_input_embeddings().num_embeddings:,}", where=str(located)
        )
    return with_head_bias(made, spec)


def judge_loading(model: nn.Module, info: dict[str, Any], where: str, *, new_head: bool = True) -> None:
    """Accept a new head and a dropped one, tell of both, and refuse everything else that does not fit."""
    base = model.base_model_prefix + "."
    is_head = lambda name: not name.startswith(base) or ".pooler." in name  # noqa: E731
    mismatched = [m for m in info.get("mismatched_keys", []) if not is_head(m[0])]
    if mismatched:
        name, theirs, ours = mismatched[0]
        raise ModelError(f"{name} is {tuple(theirs)} in the file, but the config asks for {tuple(ours)}", where=where)
    missing = sorted(n for n in info["missing_keys"] if not is_head(n) or not new_head)
    if missing:
        raise ModelError(f"{len(missing)} weights are missing: {', '.join(missing[:5])}", where=where)
    unexpected = sorted(n for n in info["unexpected_keys"] if n.startswith(base) and "position_ids" not in n and not is_head(n))
    if unexpected:
        raise ModelError(f"{len(unexpected)} weights have no place in the model: {', '.join(unexpected[:5])}", where=where)
    if new := sorted(info["missing_keys"]):
        console.notice(f"new, to be learned: {', '.join(new[:6])}{', ...' if len(new) > 6 else ''}")
    if dropped := sorted(info["unexpected_keys"]):
        console.notice(f"left out of the weights: {', '.join(dropped[:6])}{', ...' if len(dropped) > 6 else ''}")


def model_class(config: Any, task: str) -> Any:
    """The transformers class of an architecture with the head for a task."""
    kind = "classification" if task == "regression" else task
    if config.model_type in CLASSES and kind in CLASSES[config.model_type][1]:
        from importlib import import_module

        module, names = CLASSES[config.model_type]
        return getattr(import_module(f"transformers.models.{module}"), names[kind])
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

    auto = {"classification": AutoModelForSequenceClassification, "masked_lm": AutoModelForMaskedLM, "causal_lm": AutoModelForCausalLM}[kind]
    try:
        return auto._model_mapping[type(config)]
    except KeyError:
        raise ModelError(f"the architecture {config.model_type} cannot do task={task}", remedy="use a model of another architecture") from None


def with_head_bias(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """Let a new regression head start at the mean of the targets."""
    if spec.task == "regression":
        for head in (getattr(model, name, None) for name in ("classifier", "score")):
            if isinstance(head, nn.Linear) and head.bias is not None:
                nn.init.constant_(head.bias, spec.target_mean)
    return model


def _set_task(config: Any, spec: ModelSpec) -> None:
    if spec.task in ("classification", "regression"):
        config.num_labels = spec.num_outputs
        config.id2label, config.label2id = spec.labels["id2label"], spec.labels["label2id"]
        config.problem_type = "regression" if spec.task == "regression" else "single_label_classification"
    if getattr(config, "pad_token_id", None) is None or spec.pad_token_id is not None:
        config.pad_token_id = spec.pad_token_id


def _with_attention(wanted: str, make: Any) -> Any:
    if wanted != "auto":
        return make(wanted)
    try:
        return make("sdpa")
    except ValueError:  # the architecture has no SDPA
        return make("eager")


def _load(load: Any, located: Path | str) -> Any:
    try:
        return load()
    except ModelError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as e:
        remedy = "check the name, and that the network is there; or name a local directory" if isinstance(located, str) else None
        raise ModelError(f"cannot be loaded: {str(e).strip().splitlines()[0]}", where=str(located), remedy=remedy) from None
