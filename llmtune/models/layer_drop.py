"""Layers left out at random in training. Fan et al. 2020: https://arxiv.org/abs/1909.11556"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from llmtune.errors import ModelError


def install(model: nn.Module, *, probability: float) -> None:
    """Let each pass in training go without some of the layers; evaluation has them all, and nothing is rescaled.

    What is left out comes from torch's generator, one draw for each pass. A pass has one layer at least: with frozen word
    vectors, there would be nothing to learn from otherwise.

    Args:
        model: one of transformers' own, opened for tuning, before it is compiled.
        probability: of a layer to be left out.

    Raises:
        ModelError: its layers are not of a kind that can be left out.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not _give_hidden_states(model, layers):
        remedy = "leave out training.layer_drop"
        raise ModelError(f"the layers of {model.config.model_type} cannot be left out one by one", remedy=remedy)
    lottery = _Lottery(len(layers), probability)
    for number, layer in enumerate(layers):
        layer.forward = partial(_forward, layer, layer.forward, lottery, number)


@torch.no_grad()
def _give_hidden_states(model: nn.Module, layers: list[nn.Module]) -> bool:
    """Whether each layer turns hidden states into hidden states, so that these can stand in for what it gives."""
    given: list[Any] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: given.append(out)) for layer in layers]
    was_training, device = model.training, next(model.parameters()).device
    model.eval()(input_ids=torch.ones(1, 2, dtype=torch.long, device=device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return len(given) == len(layers) and all(torch.is_tensor(out) for out in given)


class _Lottery:
    """Which layers the pass goes without that is under way."""

    def __init__(self, num_layers: int, probability: float):
        self._num_layers, self._probability = num_layers, probability
        self._left_out: list[bool] = []

    def leaves_out(self, number: int) -> bool:
        if number == 0:
            draws = torch.rand(self._num_layers)
            left_out = draws < self._probability
            left_out[draws.argmax()] = False
            self._left_out = left_out.tolist()
        return self._left_out[number]


def _forward(layer: nn.Module, whole: Any, lottery: _Lottery, number: int, *args: Any, **kwargs: Any) -> Tensor:
    if layer.training and lottery.leaves_out(number):
        return args[0] if args else kwargs["hidden_states"]
    return whole(*args, **kwargs)
