"""Each optimizer against its formula or another implementation; what it keeps, and that it goes on from that to the bit."""

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from llmtune.config.sections.optimizer import Adafactor, AdamW, Lion, Muon, OptimizerConfig, ScheduleFree, Sgd
from llmtune.errors import ModelError
from llmtune.training import optimizers
from llmtune.training.parameter_groups import ParameterGroup

MOMENTS = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}
CONFIGS: dict[str, OptimizerConfig] = {
    "adamw": AdamW(type="adamw", lr=0.01, weight_decay=0.1, **MOMENTS),
    "sgd": Sgd(type="sgd", lr=0.1, weight_decay=0.1, momentum=0.9, nesterov=True),
    "adafactor": Adafactor(type="adafactor", lr=0.05, weight_decay=0.1, beta2_decay=-0.8, clip_threshold=1.0),
    "lion": Lion(type="lion", lr=0.01, weight_decay=0.1, beta1=0.9, beta2=0.99),
    "muon": Muon(type="muon", lr=0.01, weight_decay=0.1, momentum=0.95, nesterov=True, **MOMENTS),
    "schedule_free": ScheduleFree(type="schedule_free", lr=0.01, weight_decay=0.1, **MOMENTS),
}


class Layers(nn.Module):
    """A table, a wide and a tall matrix of a layer, a vector, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sizes = {"table": (9, 4), "wide": (3, 8), "tall": (8, 3), "vector": (8,), "head": (2, 8)}
        for name, shape in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))

    def groups(self) -> list[ParameterGroup]:
        return [
            ParameterGroup("embeddings", [self.table], 1.0, 0.1),
            ParameterGroup("layer 0", [self.wide, self.tall], 1.0, 0.1),
            ParameterGroup("layer 0", [self.vector], 1.0, 0.0),
            ParameterGroup("head", [self.head], 0.5, 0.1),
        ]


def gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def trained(config: OptimizerConfig, steps: range, model: Layers | None = None, optimizer: Any = None) -> tuple[Layers, Any]:
    model = model or Layers()
    optimizer = optimizer or optimizers.build(model.groups(), config)
    for step in steps:
        gradients(model, step)
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", CONFIGS)
def test_it_goes_on_to_the_bit_from_what_a_file_holds(name: str):
    config = CONFIGS[name]
    whole, _ = trained(config, range(7))
    half, optimizer = trained(config, range(4))
    stored = load(save({k: v.clone() for k, v in optimizers.state_tensors(half, optimizer).items()}))
    again = Layers()
    again.load_state_dict(half.state_dict())
    made = optimizers.build(again.groups(), config)
    optimizers.load_state_tensors(again, made, stored)
    trained(config, range(4, 7), again, made)
    for weight in whole.state_dict():
        assert torch.equal(whole.state_dict()[weight], again.state_dict()[weight]), weight


@pytest.mark.parametrize("name", CONFIGS)
def test_the_size_of_its_state_is_foretold(name: str):
    model, optimizer = trained(CONFIGS[name], range(1))
    kept = optimizers.state_tensors(model, optimizer).values()
    assert optimizers.state_size(model.groups(), CONFIGS[name]) == sum(4 * t.numel() for t in kept if t.ndim)


def test_sgd_without_momentum_keeps_nothing():
    config = Sgd(type="sgd", lr=0.1, weight_decay=0.1, momentum=0.0, nesterov=False)
    model, optimizer = trained(config, range(2))
    assert optimizers.state_tensors(model, optimizer) == {} and optimizers.state_size(model.groups(), config) == 0


def by_hand(step_of: Any, *, steps: int = 5) -> dict[str, torch.Tensor]:
    """The weights after steps of a formula `step_of(weight, gradient, memory, t, scale of lr, decay)` in float64."""
    model, memory = Layers().double(), {}
    rates = {id(p): (g.lr_scale, g.weight_decay) for g in model.groups() for p in g.params}
    for t in range(1, steps + 1):
        gradients(model, t - 1)
        for name, parameter in model.named_parameters():
            scale, decay = rates[id(parameter)]
            with torch.no_grad():
                parameter.copy_(step_of(parameter, parameter.grad, memory.setdefault(name, {}), t, scale, decay))
    return model.state_dict()


def assert_near(model: Layers, expected: dict[str, torch.Tensor]) -> None:
    for name, weight in model.state_dict().items():
        assert torch.allclose(weight, expected[name].float(), rtol=1e-4, atol=1e-6), name


def test_lion_is_the_papers_formula():
    config = CONFIGS["lion"]

    def step(w, g, memory, t, scale, decay):
        m = memory.get("m", torch.zeros_like(w))
        c = 0.9 * m + 0.1 * g
        memory["m"] = 0.99 * m + 0.01 * g
        return w - scale * config.lr * (c.sign() + decay * w)

    assert_near(trained(config, range(5))[0], by_hand(step))


def test_adafactor_is_the_papers_formula():
    """Algorithm 4 of Shazeer and Stern with decoupled decay; the paper adds its tiny eps elsewhere."""
    config = CONFIGS["adafactor"]

    def rms(x):
        return x.square().mean().sqrt()

    def step(w, g, memory, t, scale, decay):
        keep, lr = 1 - t**-0.8, scale * config.lr
        if w.ndim == 2:
            rows = memory["rows"] = keep * memory.get("rows", 0) + (1 - keep) * g.square().sum(1)
            columns = memory["columns"] = keep * memory.get("columns", 0) + (1 - keep) * g.square().sum(0)
            mean_square = torch.outer(rows, columns) / rows.sum()
        else:
            mean_square = memory["v"] = keep * memory.get("v", 0) + (1 - keep) * g.square()
        update = g / mean_square.sqrt()
        update = update / max(1.0, rms(update))
        size = max(1e-3, rms(w)) * min(lr, 1 / math.sqrt(t))
        return w * (1 - lr * decay) - size * update

    assert_near(trained(config, range(5))[0], by_hand(step))


def test_muon_is_two_optimizers():
    """torch's own Muon for the matrices of the layer, and AdamW for the table, the vector and the head."""
    config, model = CONFIGS["muon"], Layers()
    hidden = torch.optim.Muon(
        [model.wide, model.tall], lr=0.01, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    others = torch.optim.AdamW(
        [
            {"params": [model.table]},
            {"params": [model.vector], "weight_decay": 0.0},
            {"params": [model.head], "lr": 0.005},
        ],
        lr=0.01,
        weight_decay=0.1,
        betas=(0.9, 0.99),
    )
    for step in range(5):
        gradients(model, step)
        hidden.step()
        others.step()
    assert_near(trained(config, range(5))[0], model.state_dict())


def test_muon_makes_steps_orthogonal():
    before, (after, _) = Layers(), trained(CONFIGS["muon"].model_copy(update={"lr": 1.0}), range(1))
    moved = before.wide * (1 - 0.1) - after.wide
    singular = torch.linalg.svdvals(moved.detach() / (0.2 * math.sqrt(8)))
    assert ((singular > 0.6) & (singular < 1.3)).all()


def test_muon_without_a_matrix_to_work_on_is_refused():
    model = Layers()
    with pytest.raises(ModelError, match="matrices of the layers"):
        optimizers.build([ParameterGroup("head", [model.head], 1.0, 0.0)], CONFIGS["muon"])


def test_schedule_free_is_the_papers_formula():
    """Its weights are y; z is a plain walk, and x the average of it, here with equal shares."""
    config = CONFIGS["schedule_free"]

    def step(y, g, memory, t, scale, decay):
        lr = scale * config.lr
        z, x = memory.get("z", y.clone()), memory.get("x", y.clone())
        v = memory["v"] = 0.99 * memory.get("v", 0) + 0.01 * g.square()
        z = memory["z"] = z - lr * (g / ((v / (1 - 0.99**t)).sqrt() + 1e-8) + decay * y)
        x = memory["x"] = x + (z - x) / t
        return 0.9 * x + 0.1 * z

    assert_near(trained(config, range(5))[0], by_hand(step))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_weight_without_gradient_stays(name: str):
    """A layer that is left out in a step has none."""
    model = Layers()
    optimizer = optimizers.build(model.groups(), CONFIGS[name])
    for step in range(2):
        gradients(model, step)
        model.wide.grad = None
        optimizer.step()
    assert torch.equal(model.wide, Layers().wide) and not torch.equal(model.tall, Layers().tall)
