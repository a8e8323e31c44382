"""How weights are opened for training: all at once or one after another, some by their place or name, or adapters on top."""

import difflib
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from llmtune.config.sections.tuning import LEARN_ALL, PatternTuning, TuningConfig
from llmtune.errors import ConfigError
from llmtune.models.heads import new_weights
from llmtune.tuning import adapters, pissa
from llmtune.tuning.heads import head_parameters

__all__ = ["apply", "head_parameters", "learned_tensors", "merged"]


def apply(model: PreTrainedModel, tuning: TuningConfig, *, max_length: int = 0, packs: bool = False) -> nn.Module:
    """Decide by `requires_grad` which weights learn; adapters wrap the model. What has just been drawn always learns.

    With `tuning=gradual` all weights are open: `training.openings` closes those whose time has not come.

    Args:
        model: with the task's head.
        tuning: the config section.
        max_length: most tokens of a text, beside which virtual ones have to fit.
        packs: whether weights that have few bits are held in them, to train; else as floats, to be merged into.

    Raises:
        ConfigError: the model has no head of its own, no layer or weight of a name, or no room for virtual tokens.
        ModelError: peft does not know how to do this with the architecture.
        ResourceError: peft is not installed.
    """
    if tuning.type in LEARN_ALL:
        return model
    if tuning.type in ("head", "pattern"):
        chosen = head_parameters(model) if tuning.type == "head" else _named(model, tuning)
        learned = chosen | new_weights(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in learned)
        return model
    return adapters.add(model, tuning, max_length=max_length, packs=packs)


def learned_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of an opened model beside the weights that do not learn: those that do, and PiSSA's start."""
    learned: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return learned | pissa.starts(model)


def merged(model: nn.Module) -> nn.Module:
    """The plain model: adapters merged into the weights, and every weight open again that its architecture opens.

    Virtual tokens cannot be merged: such a model stays as it is.
    """
    if adapters.has_virtual_tokens(model):
        return model
    plain = model.merge_and_unload() if adapters.is_wrapped(model) else model
    with torch.device("meta"), no_init_weights():
        untouched = type(plain)(plain.config)
    learns = {name: parameter.requires_grad for name, parameter in untouched.named_parameters()}
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(learns[name])
    return plain


def _named(model: PreTrainedModel, tuning: PatternTuning) -> set[str]:
    """The weights that `tuning.learn` takes and `tuning.freeze` leaves.

    Raises:
        ConfigError: a pattern takes no weight, or all of them together none.
    """
    names, problems = [name for name, _ in model.named_parameters()], []
    for key in ("learn", "freeze"):
        for pattern in getattr(tuning, key):
            if not any(fnmatchcase(name, pattern) for name in names):
                problems.append(f"tuning.{key}: no weight is called '{pattern}'; {_nearest(pattern, names)}")
    if problems:
        raise ConfigError(problems)
    taken = {name for name in names if any(fnmatchcase(name, pattern) for pattern in tuning.learn)}
    learned = {name for name in taken if not any(fnmatchcase(name, pattern) for pattern in tuning.freeze)}
    if not learned | new_weights(model):
        raise ConfigError(["tuning.freeze: leaves no weight to learn"])
    return learned


def _nearest(pattern: str, names: list[str]) -> str:
    """Names of weights like a pattern; those that hold it come first, for a `*` may be all that is missing."""
    bare = pattern.strip("*")
    around = [name for name in names if bare and bare in name][:3]
    near = around or difflib.get_close_matches(pattern, names, n=3, cutoff=0.3) or names[:3]
    hint = f" ('*{bare}*' takes them)" if around else ""
    return f"the nearest are {', '.join(near)}{hint}"
