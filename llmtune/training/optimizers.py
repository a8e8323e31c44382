"""The table of optimizers, and their state as named tensors."""

import torch
from torch import nn

from llmtune.config.sections.training import OptimizerConfig
from llmtune.training import parameter_groups
from llmtune.training.live_rows import LiveRows
from llmtune.training.parameter_groups import ParameterGroup

ROWS = "rows"


def build(groups: list[ParameterGroup], optimizer: OptimizerConfig) -> torch.optim.Optimizer:
    """An optimizer over groups of weights; the fused kernel exists for the CPU and for CUDA."""
    parts = [
        {"params": group.params, "lr": optimizer.lr * group.lr_scale, "weight_decay": group.weight_decay}
        for group in parameter_groups.in_few(groups)
    ]
    if optimizer.type == "adamw":
        betas = (optimizer.beta1, optimizer.beta2)
        return torch.optim.AdamW(parts, lr=optimizer.lr, betas=betas, eps=optimizer.eps, fused=True)
    return torch.optim.SGD(parts, lr=optimizer.lr, momentum=optimizer.momentum, nesterov=optimizer.nesterov, fused=True)


def state_size(model: nn.Module, optimizer: OptimizerConfig) -> int:
    """Bytes of the state that an optimizer will have."""
    per_weight = 2 if optimizer.type == "adamw" else int(optimizer.momentum > 0)
    return per_weight * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as named tensors: `<weight>/<state>`, and `<weight>/rows` where only some rows of a table learn."""
    tensors = {
        f"{name}/{key}": value if torch.is_tensor(value) else torch.tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }
    return tensors | {f"{name}/{ROWS}": module.rows for name, module in _live(model).items()}


def load_state_tensors(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Put back what `state_tensors` gave."""
    parameters, live = dict(model.named_parameters()), _live(model)
    for name, value in tensors.items():
        weight, key = name.rsplit("/", 1)
        if key == ROWS:
            continue
        if weight in live:
            value = live[weight].aligned(value, tensors.get(f"{weight}/{ROWS}"))
        parameter = parameters[weight]
        # The fused kernels want the step counter on the device of the weight, as float32.
        optimizer.state[parameter][key] = value.to(parameter.device)


def _live(model: nn.Module) -> dict[str, LiveRows]:
    return {f"{name}.weight": module for name, module in model.named_modules() if isinstance(module, LiveRows)}
