"""Muon for the matrices between embedding and head, AdamW for all other weights, as one optimizer.

Jordan et al. 2024: https://kellerjordan.github.io/posts/muon. Steps have the size of AdamW's (Liu et al. 2025:
https://arxiv.org/abs/2502.16982), so that one learning rate serves both.
"""

from collections import defaultdict
from typing import Any

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """Both optimizers share their groups and their state with this one, where the loop and the checkpoint look for them.

    The state of a hidden matrix is `momentum_buffer`, that of another weight AdamW's.

    Args:
        hidden: groups of matrices, as torch takes them.
        others: groups of all other weights.
        lr: of groups that have none.
        momentum, nesterov: Muon's.
        betas, eps: AdamW's.
    """

    def __init__(
        self,
        hidden: list[dict[str, Any]],
        others: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        betas: tuple[float, float],
        eps: float,
    ):
        how = {"momentum": momentum, "nesterov": nesterov, "adjust_lr_fn": "match_rms_adamw"}
        self._parts: list[torch.optim.Optimizer] = [torch.optim.Muon(hidden, lr=lr, **how)]
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
