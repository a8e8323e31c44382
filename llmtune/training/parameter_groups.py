"""Which weights an optimizer treats alike: by their place in the model, each with its learning rate and weight decay."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from llmtune.config.sections.tuning import TuningConfig
from llmtune.tuning import places

NEVER_DECAYED = "ia3_l"  # factors that change nothing at one, not at zero


@dataclass(frozen=True)
class ParameterGroup:
    """Weights of one place that learn at the same rate.

    Attributes:
        name: their place: embeddings, layer 0, ..., head, adapters.
        params: those that learn, or will (`tuning=gradual`).
        lr_scale: their learning rate as a share of the optimizer's.
        weight_decay: of the optimizer, or 0.
    """

    name: str
    params: list[nn.Parameter]
    lr_scale: float
    weight_decay: float

    @property
    def is_layer(self) -> bool:
        """Whether its place is between word vectors and head."""
        return self.name.startswith("layer ")


def build(model: nn.Module, tuning: TuningConfig, *, weight_decay: float) -> list[ParameterGroup]:
    """The groups of all weights that learn, from the word vectors to the head; of each place, first those that decay.

    Vectors (biases, norms) are spared from weight decay: they are few and shrinking them costs accuracy.
    """
    parameters, where = dict(model.named_parameters()), places.of(model)
    scales = lr_scales(list(where), decay=getattr(tuning, "lr_decay", 1.0))
    groups = []
    for place, names in where.items():
        learned = {name: parameters[name] for name in names if parameters[name].requires_grad}
        matrices = [p for name, p in learned.items() if p.ndim >= 2 and NEVER_DECAYED not in name]
        held = {id(p) for p in matrices}
        groups.append(ParameterGroup(place, matrices, scales[place], weight_decay))
        groups.append(ParameterGroup(place, [p for p in learned.values() if id(p) not in held], scales[place], 0.0))
    return [group for group in groups if group.params]


def lr_scales(ordered: list[str], *, decay: float) -> dict[str, float]:
    """The share of the learning rate for each place: 1 for the last one, and `decay` times as much for each one before it.

    Layer-wise learning-rate decay: Howard and Ruder 2018 (discriminative fine-tuning), Clark et al. 2020 (ELECTRA).
    """
    return {place: decay ** (len(ordered) - 1 - depth) for depth, place in enumerate(ordered)}


def in_few(groups: Iterable[ParameterGroup]) -> list[ParameterGroup]:
    """The groups with those put together that differ in their place alone: an optimizer makes one call for each."""
    alike: dict[tuple[float, float], list[ParameterGroup]] = {}
    for group in groups:
        alike.setdefault((group.lr_scale, group.weight_decay), []).append(group)
    return [
        ParameterGroup(", ".join(dict.fromkeys(g.name for g in some)), [p for g in some for p in g.params], scale, decay)
        for (scale, decay), some in alike.items()
    ]
