"""Fully connected layers over numbers. B: rows, F: features, C: outputs."""

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}


class MlpConfig(PretrainedConfig):
    """What `MlpForRows` is built from; means and deviations of the train rows travel with it."""

    model_type = "llmtune_mlp"

    def __init__(
        self,
        num_features: int = 1,
        hidden_sizes: tuple[int, ...] = (),
        activation: str = "relu",
        dropout: float = 0.0,
        standardize: bool = False,
        feature_mean: tuple[float, ...] | None = None,
        feature_std: tuple[float, ...] | None = None,
        target_mean: float = 0.0,
        target_std: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_features, self.hidden_sizes = num_features, list(hidden_sizes)
        self.activation, self.dropout, self.standardize = activation, dropout, standardize
        self.feature_mean = list(feature_mean or [0.0] * num_features)
        self.feature_std = list(feature_std or [1.0] * num_features)
        self.target_mean, self.target_std = target_mean, target_std


class MlpForRows(PreTrainedModel):
    """Standardized features through the layers; the answer of a regression comes back in the unit of the target."""

    config_class = MlpConfig
    base_model_prefix = "body"

    def __init__(self, config: MlpConfig):
        super().__init__(config)
        self.body = MlpBody(config)
        self.classifier = nn.Linear([config.num_features, *config.hidden_sizes][-1], config.num_labels)
        self.post_init()

    def forward(self, features: Tensor) -> SequenceClassifierOutput:
        """Logits [B, C] for features [B, F]."""
        logits_BC = self.classifier(self.body(features))
        return SequenceClassifierOutput(logits=logits_BC * (self.config.target_std or 1.0) + self.config.target_mean)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear) and not getattr(module.weight, "_is_hf_initialized", False):
            module.reset_parameters()  # random biases spread the bends of the activations over the inputs
        elif isinstance(module, MlpBody):
            module.set_scales(self.config)


class MlpBody(nn.Module):
    """Scaling and hidden layers: from numbers to the vector that the head reads."""

    def __init__(self, config: MlpConfig):
        super().__init__()
        self.register_buffer("mean_F", torch.empty(config.num_features), persistent=False)
        self.register_buffer("std_F", torch.empty(config.num_features), persistent=False)
        blocks = []
        width = config.num_features
        for size in config.hidden_sizes:
            blocks += [nn.Linear(width, size), ACTIVATIONS[config.activation](), nn.Dropout(config.dropout)]
            width = size
        self.layers = nn.Sequential(*blocks)

    def forward(self, features_BF: Tensor) -> Tensor:
        return self.layers((features_BF - self.mean_F) / self.std_F)

    def set_scales(self, config: MlpConfig) -> None:
        """Take means and deviations from the config, where they are kept; a constant feature is only shifted."""
        with torch.no_grad():
            self.mean_F.copy_(torch.tensor(config.feature_mean))
            self.std_F.copy_(torch.tensor([std or 1.0 for std in config.feature_std]))
