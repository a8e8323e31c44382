"""Fully connected layers over numbers. B: examples, F: features, C: outputs."""

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
        feature_mean: tuple[float, ...] | None = None,
        feature_std: tuple[float, ...] | None = None,
        target_mean: float = 0.0,
        target_std: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_features, self.hidden_sizes = num_features, list(hidden_sizes)
        self.activation, self.dropout = activation, dropout
        self.feature_mean = list(feature_mean or [0.0] * num_features)
        self.feature_std = list(feature_std or [1.0] * num_features)
        self.target_mean, self.target_std = target_mean, target_std


class MlpForRows(PreTrainedModel):
    """Standardized features through the layers; the answer of a regression comes back in the unit of the target."""

    config_class = MlpConfig
    base_model_prefix = "layers"

    def __init__(self, config: MlpConfig):
        super().__init__(config)
        widths = [config.num_features, *config.hidden_sizes]
        blocks = []
        for narrow, wide in zip(widths, widths[1:], strict=False):
            blocks += [nn.Linear(narrow, wide), ACTIVATIONS[config.activation](), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*blocks)
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, features: Tensor) -> SequenceClassifierOutput:
        """Logits [B, C] for features [B, F]."""
        c = self.config
        mean_F = torch.tensor(c.feature_mean, dtype=features.dtype, device=features.device)
        std_F = torch.tensor([s or 1.0 for s in c.feature_std], dtype=features.dtype, device=features.device)
        logits_BC = self.classifier(self.layers((features - mean_F) / std_F))
        return SequenceClassifierOutput(logits=logits_BC * (c.target_std or 1.0) + c.target_mean)
