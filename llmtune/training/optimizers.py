"""The table of optimizers, which weights decay, and the state of an optimizer as named tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llmtune.config.sections.optimizer import OptimizerConfig
from llmtune.errors import ResourceError
from llmtune.training.lion import Lion
from llmtune.training.live_rows import LiveRows
from llmtune.training.muon import MuonWithAdamW, is_hidden_matrix

ROWS = "rows"
# Numbers that belong to a group of weights and not to one of them, by their type: AdamWScheduleFree counts like that.
OF_GROUP = {"k": int, "weight_sum": float, "lr_max": float}
GROUP = "group-"  # no weight is called so
# Their step for a weight depends on the whole matrix, so that it cannot be that of some rows.
NEED_WHOLE_MATRICES = ("adafactor",)


def build(model: nn.Module, optimizer: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer over the weights that learn.

    Vectors (biases, norms) are spared from weight decay: they are few and shrinking them costs accuracy.

    Raises:
        ResourceError: its package is not installed.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": optimizer.weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[optimizer.type](model, [g for g in groups if g["params"]], optimizer)


def _adamw(_: nn.Module, groups: list[dict], config: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def _sgd(_: nn.Module, groups: list[dict], config: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)


def _adafactor(_: nn.Module, groups: list[dict], config: Any) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, lr=config.lr, beta2_decay=config.beta2_decay, d=config.clip_threshold)


def _lion(_: nn.Module, groups: list[dict], config: Any) -> torch.optim.Optimizer:
    return Lion(groups, lr=config.lr, betas=(config.beta1, config.beta2))


def _muon(model: nn.Module, groups: list[dict], config: Any) -> torch.optim.Optimizer:
    return MuonWithAdamW(
        groups,
        is_hidden=is_hidden_matrix(model),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def _schedule_free(_: nn.Module, groups: list[dict], config: Any) -> torch.optim.Optimizer:
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError:
        remedy = "pip install 'llmtune[optimizers]'"
        raise ResourceError("optimizer=schedule_free needs the package schedulefree", remedy=remedy) from None
    made = AdamWScheduleFree(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
    made.train()  # for good: its own way to the average and back is not exact, see averaging.py
    return made


OPTIMIZERS: dict[str, Callable[[nn.Module, list[dict], Any], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "lion": _lion,
    "muon": _muon,
    "schedule_free": _schedule_free,
}


def state_size(model: nn.Module, optimizer: OptimizerConfig) -> int:
    """Bytes of the state that an optimizer will have."""
    is_hidden = is_hidden_matrix(model) if optimizer.type == "muon" else None
    learned = [p for p in model.parameters() if p.requires_grad]
    return sum(_numbers_kept(p, optimizer, is_hidden) * p.element_size() for p in learned)


def _numbers_kept(weight: Tensor, optimizer: OptimizerConfig, is_hidden: Callable[[Tensor], bool] | None) -> int:
    match optimizer.type:
        case "sgd":
            return weight.numel() * int(optimizer.momentum > 0)
        case "lion":
            return weight.numel()
        case "muon":
            return weight.numel() * (1 if is_hidden(weight) else 2)
        case "adafactor" if weight.ndim >= 2:
            return weight.numel() // weight.shape[-1] + weight.numel() // weight.shape[-2]
        case "adafactor":
            return weight.numel()
    return 2 * weight.numel()


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors.

    They are `<weight>/<state>`; `<weight>/rows` where only some rows of a table learn; and `group-<number>/<state>`.
    """
    tensors = {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
    for number, group in enumerate(optimizer.param_groups):
        # float64, as Python counts
        counted = {key: torch.tensor(kind(group[key]), dtype=_DTYPES[kind]) for key, kind in OF_GROUP.items() if key in group}
        tensors |= {f"{GROUP}{number}/{key}": value for key, value in counted.items()}
    return tensors | {f"{name}/{ROWS}": module.rows for name, module in _live(model).items()}


def aligned(model: nn.Module, weights: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that were saved beside a state, for the rows that learn now."""
    of_rows = {
        name: module.aligned(weights[name], state.get(f"{name}/{ROWS}"), new=module.table())
        for name, module in _live(model).items()
        if name in weights
    }
    return weights | of_rows


def load_state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `state_tensors` gave."""
    parameters, live = dict(model.named_parameters()), _live(model)
    for name, value in tensors.items():
        owner, key = name.rsplit("/", 1)
        if key == ROWS:
            continue
        if owner.startswith(GROUP):
            optimizer.param_groups[int(owner.removeprefix(GROUP))][key] = value.item()
            continue
        if owner in live:
            value = live[owner].aligned(value, tensors.get(f"{owner}/{ROWS}"))
        parameter = parameters[owner]
        # The fused kernels want the step counter on the device of the weight, as float32.
        optimizer.state[parameter][key] = value.to(parameter.device)


_DTYPES = {int: torch.int64, float: torch.float64}


def _live(model: nn.Module) -> dict[str, LiveRows]:
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, LiveRows)}
