"""Averages of the weights of several models ("soups"). Wortsman et al. 2022: https://arxiv.org/abs/2203.05482"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Score = Callable[[nn.Module], float]  # larger is better


class Soup(NamedTuple):
    """A model whose weights are a mean; `members`: the places of those that are in it, in the order they came."""

    model: nn.Module
    members: list[int]


def uniform(models: Iterable[nn.Module]) -> Soup:
    """The plain mean of all. Two models are held at a time."""
    soup, members = None, []
    for number, model in enumerate(models):
        soup = model if soup is None else _mixed(soup, model, share=1 / (number + 1))
        members.append(number)
    return Soup(soup, members)


def greedy(load: Callable[[int], nn.Module], scores: Sequence[float], score: Score) -> Soup:
    """From the best model on, each next one is taken in if the mean is then no worse. Two models are held at a time.

    Args:
        load: gives the model of a number; it may be changed.
        scores: of each model by itself.
        score: of a mean.
    """
    order = sorted(range(len(scores)), key=lambda number: -scores[number])
    soup, members, best = load(order[0]), [order[0]], scores[order[0]]
    for number in order[1:]:
        tried = _mixed(soup, load(number), share=1 / (len(members) + 1))
        if (value := score(tried)) >= best:
            soup, best = tried, value
            members.append(number)
    return Soup(soup, members)


@torch.no_grad()
def _mixed(soup: nn.Module, model: nn.Module, *, share: float) -> nn.Module:
    """The model, with weights of which this share is its own and the rest the soup's; both have the same names and shapes."""
    others: dict[str, Tensor] = dict(soup.named_parameters())
    for name, weight in model.named_parameters():
        weight.lerp_(others[name].to(weight.device), 1 - share)
    return model
