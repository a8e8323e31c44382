"""The table of optimizers, and their state as named tensors."""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from llmtune.config.sections.optimizer import OptimizerConfig
from llmtune.errors import ModelError, ResourceError
from llmtune.training import parameter_groups
from llmtune.training.lion import Lion
from llmtune.training.live_rows import LiveRows
from llmtune.training.muon import MuonWithAdamW
from llmtune.training.parameter_groups import ParameterGroup

ROWS = "rows"
# Numbers that belong to a group of weights and not to one of them, by their type: AdamWScheduleFree counts like that.
OF_GROUP = {"k": int, "weight_sum": float, "lr_max": float}
GROUP = "group-"  # no weight is called so
# Their step for a weight depends on the whole matrix, so that it cannot be that of some rows.
NEED_WHOLE_MATRICES = ("adafactor",)


def require(optimizer: OptimizerConfig) -> None:
    """Stop if a package is missing.

    Raises:
        ResourceError: it is.
    """
    if optimizer.type == "schedule_free" and find_spec("schedulefree") is None:
        remedy = "pip install 'llmtune[optimizers]'"
        raise ResourceError("optimizer=schedule_free needs the package schedulefree", remedy=remedy)


def build(groups: list[ParameterGroup], optimizer: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer over groups of weights.

    Raises:
        ModelError: there is no weight that it is for.
    """
    return OPTIMIZERS[optimizer.type](groups, optimizer)


def _adamw(groups: list[ParameterGroup], config: Any) -> torch.optim.Optimizer:
    how = {"betas": (config.beta1, config.beta2), "eps": config.eps, "fused": True}
    return torch.optim.AdamW(_parts(groups, config), lr=config.lr, **how)


def _sgd(groups: list[ParameterGroup], config: Any) -> torch.optim.Optimizer:
    how = {"momentum": config.momentum, "nesterov": config.nesterov, "fused": True}
    return torch.optim.SGD(_parts(groups, config), lr=config.lr, **how)


def _adafactor(groups: list[ParameterGroup], config: Any) -> torch.optim.Optimizer:
    how = {"beta2_decay": config.beta2_decay, "d": config.clip_threshold}
    return torch.optim.Adafactor(_parts(groups, config), lr=config.lr, **how)


def _lion(groups: list[ParameterGroup], config: Any) -> torch.optim.Optimizer:
    return Lion(_parts(groups, config), lr=config.lr, betas=(config.beta1, config.beta2))


def _muon(groups: list[ParameterGroup], config: Any) -> torch.optim.Optimizer:
    hidden = [replace(group, params=[p for p in group.params if _is_hidden(group, p)]) for group in groups]
    others = [replace(group, params=[p for p in group.params if not _is_hidden(group, p)]) for group in groups]
    if not any(group.params for group in hidden):
        remedy = "use optimizer=adamw"
        raise ModelError("optimizer=muon is for matrices of the layers, and none of those that learn is one", remedy=remedy)
    return MuonWithAdamW(
        _parts(hidden, config),
        _parts(others, config),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )


def _schedule_free(groups: list[ParameterGroup], config: Any) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree

    how = {"betas": (config.beta1, config.beta2), "eps": config.eps}
    made = AdamWScheduleFree(_parts(groups, config), lr=config.lr, **how)
    made.train()  # for good: its own way to the average and back is not exact, see averaging.py
    return made


OPTIMIZERS: dict[str, Callable[[list[ParameterGroup], Any], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "adafactor": _adafactor,
    "lion": _lion,
    "muon": _muon,
    "schedule_free": _schedule_free,
}


def _parts(groups: list[ParameterGroup], optimizer: OptimizerConfig) -> list[dict[str, Any]]:
    """The groups as torch takes them."""
    return [
        {"params": group.params, "lr": optimizer.lr * group.lr_scale, "weight_decay": group.weight_decay}
        for group in parameter_groups.in_few(group for group in groups if group.params)
    ]


def _is_hidden(group: ParameterGroup, weight: Tensor) -> bool:
    """Whether Muon is for a weight."""
    return weight.ndim == 2 and group.is_layer


def state_size(groups: list[ParameterGroup], optimizer: OptimizerConfig) -> int:
    """Bytes of the state that an optimizer will have, but for counters."""
    return sum(_numbers_kept(p, group, optimizer) * p.element_size() for group in groups for p in group.params)


def _numbers_kept(weight: Tensor, group: ParameterGroup, optimizer: OptimizerConfig) -> int:
    match optimizer.type:
        case "sgd":
            return weight.numel() * int(optimizer.momentum > 0)
        case "lion":
            return weight.numel()
        case "muon":
            return weight.numel() * (1 if _is_hidden(group, weight) else 2)
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
