"""Our MLP against torch's layers, and the straight line against least squares. B: rows, F: features."""

import numpy as np
import pytest
import torch
from torch import nn

from llmtune.models import registry
from llmtune.models.mlp import ACTIVATIONS, MlpConfig, MlpForRows
from llmtune.models.spec import ModelSpec

MEAN, STD = (10.0, -300.0, 0.5), (2.0, 50.0, 0.01)
FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "gelu": lambda x: x * (1 + (x / 2**0.5).erf()) / 2,
    "silu": lambda x: x / (1 + (-x).exp()),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
}


@pytest.fixture
def features_BF() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(40, 3, generator=generator) * torch.tensor(STD) + torch.tensor(MEAN)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_logits_equal_the_formula(activation, features_BF):
    torch.manual_seed(0)
    scales = {"feature_mean": MEAN, "feature_std": STD, "target_mean": 7.0, "target_std": 3.0}
    model = MlpForRows(MlpConfig(num_features=3, hidden_sizes=(8, 4), activation=activation, num_labels=2, **scales)).eval()
    first, second = (layer for layer in model.body.layers if isinstance(layer, nn.Linear))
    hidden_BH = (features_BF - torch.tensor(MEAN)) / torch.tensor(STD)
    for layer in (first, second):
        hidden_BH = FORMULAS[activation](hidden_BH @ layer.weight.T + layer.bias)
    expected_BC = (hidden_BH @ model.classifier.weight.T + model.classifier.bias) * 3.0 + 7.0
    assert torch.allclose(model(features_BF).logits, expected_BC, rtol=1e-5, atol=1e-5)


def test_a_straight_line_is_linear_regression(section, features_BF):
    """Fitted to the end, it has the coefficients of least squares, in the units of the data."""
    coefficients_F = torch.tensor([1.5, -0.02, 40.0])
    noise_B = 0.1 * torch.randn(40, generator=torch.Generator().manual_seed(6))
    targets_B = features_BF @ coefficients_F + 3.0 + noise_B
    spec = ModelSpec(
        task="regression",
        num_features=3,
        feature_mean=tuple(features_BF.mean(0).tolist()),
        feature_std=tuple(features_BF.std(0).tolist()),
        target_mean=targets_B.mean().item(),
        target_std=targets_B.std().item(),
    )
    model = registry.build(section("model/mlp", hidden_sizes=[]), spec).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = (model(features_BF.double()).logits.squeeze(-1) - targets_B.double()).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    design_BK = np.column_stack([features_BF.double().numpy(), np.ones(40)])
    expected_K, *_ = np.linalg.lstsq(design_BK, targets_B.double().numpy(), rcond=None)
    with torch.no_grad():
        intercept = model(torch.zeros(1, 3, dtype=torch.float64)).logits.item()
        found_F = model(torch.eye(3, dtype=torch.float64)).logits.squeeze(-1) - intercept
    assert found_F.tolist() == pytest.approx(expected_K[:3].tolist(), rel=1e-4)
    assert intercept == pytest.approx(expected_K[3], rel=1e-3)
