"""The table of architectures: build one, load a saved one, give a trained one another head."""

from pathlib import Path
from typing import Any

from torch import nn

from llmtune import console, paths
from llmtune.config.sections.model import ModelConfig
from llmtune.errors import ModelError
from llmtune.models import checks
from llmtune.models.spec import ModelSpec


def build(model: ModelConfig, spec: ModelSpec) -> nn.Module:
    """A model with the head for a task. New weights come from torch's global generator.

    Raises:
        ModelError: weights to start from are unfit.
        ConfigError: sizes do not go together.
    """
    if model.type == "lstm":
        return _lstm(spec, **model.model_dump(exclude={"type"}))
    if model.type == "mlp":
        return _mlp(model, spec)
    from llmtune.models import pretrained

    if model.pretrained is None:
        return pretrained.from_scratch(model, spec)
    return pretrained.from_weights(model, locate(model.pretrained), spec)


def locate(name: str) -> Path | str:
    """A directory for `package:` names and paths; else the name of a model on the hub.

    Raises:
        ModelError: it looks like a path, and there is none.
    """
    if name.startswith("package:"):
        return paths.resolve(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ModelError(f"there is no directory {name}", remedy="name a directory, package:NAME/PATH, or a model of the hub")
    return name


def load(directory: Path) -> nn.Module:
    """A saved model of any kind, in eval mode; every weight must be there.

    Raises:
        ModelError: anything is missing, damaged, or would run code.
    """
    config = checks.read_config(directory)
    if own := _own_class(config.get("model_type")):
        loaded, info = _from_pretrained(own, directory)
    else:
        from transformers import AutoConfig

        from llmtune.models import pretrained

        kind = pretrained._load(lambda: AutoConfig.from_pretrained(directory, trust_remote_code=False), directory)
        loaded, info = _from_pretrained(pretrained.model_class(kind, _task_of(config)), directory)
    from llmtune.models.pretrained import judge_loading

    if mismatched := info.get("mismatched_keys"):
        name, theirs, ours = next(iter(mismatched))
        raise ModelError(f"{name} is {tuple(theirs)} in the file, but the config asks for {tuple(ours)}", where=str(directory))
    judge_loading(loaded, info, str(directory), new_head=False)
    return loaded.eval()


def adapt(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """The same weights for another task: the head stays if task and label names agree, else it is new."""
    config = model.config
    if spec.vocab_size and model.get_input_embeddings().num_embeddings < spec.vocab_size:
        raise ModelError(f"the tokenizer has {spec.vocab_size:,} entries, the model's embedding {model.get_input_embeddings().num_embeddings:,}")
    names = tuple(config.id2label[i] for i in range(config.num_labels)) if config.num_labels else ()
    if _task_of(config.to_dict()) == spec.task and (spec.task != "classification" or names == spec.label_names):
        return model
    from llmtune.models import pretrained

    changed = type(config).from_dict(config.to_dict())
    pretrained._set_task(changed, spec)
    if own := _own_class(config.model_type):
        fresh = own(changed)
    else:
        fresh = pretrained.model_class(changed, spec.task)._from_config(changed, attn_implementation=config._attn_implementation)
    kept = {name: tensor for name, tensor in model.base_model.state_dict().items()}
    missing, _ = fresh.base_model.load_state_dict(kept, strict=False)
    new = [n for n, _ in fresh.named_parameters() if not n.startswith(fresh.base_model_prefix + ".")] + list(missing)
    console.notice(f"the head is new, to be learned: {', '.join(new[:6])}")
    return pretrained.with_head_bias(fresh, spec)


def _task_of(config: dict[str, Any]) -> str:
    """The task of a saved config: its architecture names the head."""
    name = (config.get("architectures") or [""])[0]
    if name.endswith("ForMaskedLM"):
        return "masked_lm"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal_lm"
    return "regression" if config.get("problem_type") == "regression" else "classification"


def _own_class(model_type: str | None) -> Any:
    if model_type == "llmtune_lstm":
        from llmtune.models.lstm import LstmForSequenceClassification

        return LstmForSequenceClassification
    if model_type == "llmtune_mlp":
        from llmtune.models.mlp import MlpForRows

        return MlpForRows
    return None


def _from_pretrained(cls: Any, directory: Path) -> Any:
    from llmtune.models.pretrained import _load

    options = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": "float32"}
    return _load(lambda: cls.from_pretrained(directory, local_files_only=True, **options), directory)


def _problem(spec: ModelSpec) -> str:
    return "regression" if spec.task == "regression" else "single_label_classification"


def _lstm(spec: ModelSpec, **sizes: Any) -> nn.Module:
    from llmtune.models.lstm import LstmConfig, LstmForSequenceClassification
    from llmtune.models.pretrained import with_head_bias

    config = LstmConfig(
        vocab_size=spec.vocab_size, pad_token_id=spec.pad_token_id, num_labels=spec.num_outputs, problem_type=_problem(spec), **spec.labels, **sizes
    )
    return with_head_bias(LstmForSequenceClassification(config), spec)


def _mlp(model: ModelConfig, spec: ModelSpec) -> nn.Module:
    from llmtune.models.mlp import MlpConfig, MlpForRows

    scales = {}
    if model.standardize:
        scales = {"feature_mean": spec.feature_mean, "feature_std": spec.feature_std}
        if spec.task == "regression":
            scales |= {"target_mean": spec.target_mean, "target_std": spec.target_std}
    config = MlpConfig(
        num_features=spec.num_features,
        hidden_sizes=model.hidden_sizes,
        activation=model.activation,
        dropout=model.dropout,
        num_labels=spec.num_outputs,
        problem_type=_problem(spec),
        **spec.labels,
        **scales,
    )
    return MlpForRows(config)
