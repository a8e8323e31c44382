"""Muon for the matrices between embedding and head, AdamW for all other weights, as one optimizer.

Jordan et al. 2024: https://kellerjordan.github.io/posts/muon. Steps have the size of AdamW's (Liu et al. 2025:
https://arxiv.org/abs/2502.16982), so that one learning rate serves both.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def is_hidden_matrix(model: nn.Module) -> Callable[[Tensor], bool]:
    """Tells the weights that Muon is for: matrices of the body that are no table of vectors, and updates of them (LoRA)."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = {id(p) for p in plain.base_model.parameters()}
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return lambda weight: weight.ndim == 2 and id(weight) in body and id(weight) not in tables


class MuonWithAdamW(torch.optim.Optimizer):
    """Both optimizers share their groups and their state with this one, where the loop and the checkpoint look for them.

    The state of a hidden matrix is `momentum_buffer`, that of another weight AdamW's.

    Args:
        groups: of weights, each with its `weight_decay` and perhaps its `lr`.
        is_hidden: whether Muon is for a weight.
        lr: of groups that have none.
        momentum, nesterov: Muon's.
        betas, eps: AdamW's.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        is_hidden: Callable[[Tensor], bool],
        lr: float,
        momentum: float,
        nesterov: bool,
        betas: tuple[float, float],
        eps: float,
    ):
        hidden, others = _parted(groups, is_hidden), _parted(groups, lambda weight: not is_hidden(weight))
        self._parts: list[torch.optim.Optimizer] = []
        if hidden:
            how = {"momentum": momentum, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
            self._parts.append(torch.optim.Muon(hidden, lr=lr, **how))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, fused=True))
        super().__init__([group for part in self._parts for group in part.param_groups], {"lr": lr})
        self.state = defaultdict(dict)
        for part in self._parts:
            part.state = self.state

    @torch.no_grad()
    def step(self) -> None:
        for part in self._parts:
            part.step()


def _parted(groups: list[dict[str, Any]], belongs: Callable[[Tensor], bool]) -> list[dict[str, Any]]:
    parted = [{**group, "params": [p for p in group["params"] if belongs(p)]} for group in groups]
    return [group for group in parted if group["params"]]
