"""The table of architectures: build one, read a saved one, give a trained one another head."""

from transformers import PreTrainedModel

from llmtune.config.sections.model import LstmModel, MlpModel, ModelConfig
from llmtune.models import heads, pretrained
from llmtune.models.heads import adapt
from llmtune.models.location import locate
from llmtune.models.lstm import LstmConfig
from llmtune.models.mlp import MlpConfig, MlpForRows
from llmtune.models.pretrained import read as load
from llmtune.models.spec import ModelSpec

__all__ = ["adapt", "build", "load"]


def build(model: ModelConfig, spec: ModelSpec) -> PreTrainedModel:
    """A model with the head for a task. New weights come from torch's global generator.

    Raises:
        ModelError: weights to start from are unfit.
        ConfigError: sizes do not go together.
    """
    if model.type in ("lstm", "mlp"):
        return _lstm(model, spec) if model.type == "lstm" else _mlp(model, spec)
    if model.pretrained is None:
        return pretrained.from_scratch(model, spec)
    directory = locate(model.pretrained, model.revision)
    return adapt(load(directory, task=spec.task, dropout=model.dropout, attention=model.attention), spec)


def _lstm(model: LstmModel, spec: ModelSpec) -> PreTrainedModel:
    sizes = model.model_dump(exclude={"type"})
    config = LstmConfig(vocab_size=spec.vocab_size, pad_token_id=spec.pad_token_id, **sizes)
    heads.set_labels(config, spec)
    made = heads.class_for(config, spec.task)(config)
    heads.start_at_mean(made, spec)
    return made


def _mlp(model: MlpModel, spec: ModelSpec) -> PreTrainedModel:
    scales = {"feature_mean": spec.feature_mean, "feature_std": spec.feature_std} if model.standardize else {}
    if model.standardize and spec.task == "regression":
        scales |= {"target_mean": spec.target_mean, "target_std": spec.target_std}
    config = MlpConfig(num_features=spec.num_features, **model.model_dump(exclude={"type"}), **scales)
    heads.set_labels(config, spec)
    return MlpForRows(config)
