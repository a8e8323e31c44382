"""Gradual unfreezing: which weights learn in a step, as a function of the step. Howard and Ruder 2018."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from llmtune import console
from llmtune.config.sections.tuning import GradualTuning
from llmtune.training.plan import TrainPlan, Window
from llmtune.tuning import head_parameters, places


@dataclass(frozen=True)
class Openings:
    """The parts of a model in the order in which they begin to learn.

    What has no gradient is nothing to the optimizer: the state of a weight begins in the step in which it opens.

    Attributes:
        parts: names of places and their weights; the first one learns from the start.
        tuning: when the others follow.
    """

    parts: list[tuple[list[str], list[nn.Parameter]]]
    tuning: GradualTuning

    def number(self, step: int, plan: TrainPlan) -> int:
        """How many parts are open in a step (from 0)."""
        if self.tuning.open_at is None:
            return min(len(self.parts), 1 + int(plan.epochs_at(step) / self.tuning.open_every))
        opened = sum(step >= share * plan.total_steps for share in self.tuning.open_at)
        return len(self.parts) if opened == len(self.tuning.open_at) else min(len(self.parts), 1 + opened)

    def before(self, windows: Iterable[Window], plan: TrainPlan) -> Iterator[Window]:
        """The windows; before each of them, those weights are opened that learn in its step."""
        for window in windows:
            number = self.number(window.step, plan)
            self.set(number)
            if window.step and number > (earlier := self.number(window.step - 1, plan)):
                told = ", ".join(place for places, _ in self.parts[earlier:number] for place in places)
                console.notice(f"from step {window.step + 1} on, more weights learn: {told}")
            yield window

    def complete_after(self, step: int, plan: TrainPlan) -> int | None:
        """The number of steps after which all weights learned; None if they do not yet after `step` of them."""
        if self.number(step, plan) < len(self.parts):
            return None
        low, high = -1, step  # of the last step in which some did not learn, and the first in which all did
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.number(middle, plan) == len(self.parts) else (middle, high)
        return high

    def set(self, number: int) -> None:
        """Let the weights of so many parts learn, and no others."""
        for i, (_, parameters) in enumerate(self.parts):
            for parameter in parameters:
                parameter.requires_grad_(i < number)


def build(model: nn.Module, tuning: GradualTuning) -> Openings:
    """The openings of a model all of whose weights are open: its head, then layers from the top, then the word vectors.

    Raises:
        ConfigError: the head shares its weights with the word vectors, so that there is none to begin with.
    """
    head_parameters(model)
    where, parameters = places.of(model), dict(model.named_parameters())
    layers = [place for place in where if place not in (places.EMBEDDINGS, places.HEAD)][::-1]
    at_once = tuning.layers_at_once
    ordered = [[places.HEAD], *(layers[i : i + at_once] for i in range(0, len(layers), at_once)), [places.EMBEDDINGS]]
    named = [(some, [parameters[name] for place in some for name in where.get(place, ())]) for some in ordered]
    return Openings([(some, held) for some, held in named if held], tuning)
