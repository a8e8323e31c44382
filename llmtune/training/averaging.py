"""Averages of the weights: training goes on with the newest, and the average is what is evaluated, saved and exported.

A checkpoint holds the average in place of the weights, and the newest weights in a file of their own, which a resume reads.
"""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from llmtune.config.sections.averaging import AveragingConfig, Ema
from llmtune.training import checkpoint
from llmtune.training.live_rows import LiveRows
from llmtune.training.parameter_groups import ParameterGroup


class Averages:
    """The average of a model's weights that learn, as far as there is one.

    Args:
        model: opened for tuning, on its device, as it will train.
        groups: of its weights that learn.
        averaging: which average.
        optimizer: one that averages by itself keeps `z`, from which its average follows.
        total_steps: of the run.

    Attributes:
        count: weights that the average is made of.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[ParameterGroup],
        averaging: AveragingConfig,
        optimizer: torch.optim.Optimizer,
        *,
        total_steps: int,
    ):
        self.count = 0
        learned = {id(p) for group in groups for p in group.params}
        self._named = {name: p for name, p in model.named_parameters() if id(p) in learned}
        self._weights = list(self._named.values())
        self._live = [module for module in model.modules() if isinstance(module, LiveRows)]
        self._config, self._optimizer, self._total_steps = averaging, optimizer, total_steps
        self._means: list[Tensor] | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is an average, or will be one."""
        return self._config.type != "none" or "weight_sum" in self._optimizer.param_groups[0]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Let the weights after a step (from 0) count, if they are to."""
        share = self._share(step)
        if share is None:
            return
        self.count += 1
        if self._means is None:
            self._means = [weight.detach().clone() for weight in self._weights]
        else:
            torch._foreach_lerp_(self._means, [weight.detach() for weight in self._weights], share)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[dict[str, Tensor]]:
        """While entered, the model's weights are the average; gives the newest by name, or nothing if these are in place."""
        means = self._means if self._means is not None else self._of_optimizer()
        if means is None:
            yield {}
            return
        self._exchange(means)
        try:
            yield dict(zip(self._named, means, strict=True))
        finally:
            self._exchange(means)

    def resume(self, count: int, newest: dict[str, Tensor]) -> None:
        """Take the model's weights as the average of so many, and these as the newest.

        Raises:
            CheckpointError: they do not fit the model.
        """
        self.count = count
        self._means = [weight.detach().clone() for weight in self._weights] if count else None
        checkpoint.copy(newest, self._named)
        for module in self._live:
            module.mark_changed()

    def reserve(self) -> None:
        """Take the memory that the average will need."""
        self._means = [weight.detach().clone() for weight in self._weights] if self._config.type != "none" else None

    def _share(self, step: int) -> float | None:
        """What the weights after a step make up of the new average; None: nothing."""
        match self._config.type:
            case "ema":
                return 1 - decay_at(self.count, self._config)
            case "swa":
                since = step - math.ceil(self._config.start_ratio * self._total_steps)
                return 1 / (self.count + 1) if since >= 0 and since % self._config.every == 0 else None
        return None

    @torch.no_grad()
    def _of_optimizer(self) -> list[Tensor] | None:
        """The average x of AdamWScheduleFree, whose weights are y = beta1 x + (1 - beta1) z."""
        states, beta1 = self._optimizer.state, self._optimizer.param_groups[0].get("betas", (0.0,))[0]
        if not any("z" in states.get(weight, {}) for weight in self._weights):
            return None
        newest = [states.get(weight, {}).get("z", weight.detach()) for weight in self._weights]
        return [torch.lerp(weight.detach(), z, 1 - 1 / beta1) for weight, z in zip(self._weights, newest, strict=True)]

    @torch.no_grad()
    def _exchange(self, others: list[Tensor]) -> None:
        """Exchange contents, not places: kernels of recurrent layers want their weights where they are."""
        for weight, other in zip(self._weights, others, strict=True):
            kept = weight.detach().clone()
            weight.copy_(other)
            other.copy_(kept)
        for module in self._live:
            module.mark_changed()


def decay_at(count: int, config: Ema) -> float:
    """The decay of an exponential average that `count` weights have made."""
    return min(config.decay, (1 + count) / (10 + count)) if config.warmup else config.decay
