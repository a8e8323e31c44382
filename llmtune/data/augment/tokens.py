"""Tokens left out or hidden when rows become a batch. An augmenter changes the token ids of one row and what goes with them."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from llmtune.config.sections.augment import AugmentConfig
from llmtune.config.sections.augment_model import TokenAugment
from llmtune.errors import ConfigError

Columns = dict[str, np.ndarray]  # input_ids [L] and, of pairs, token_type_ids [L]
TokenAugmenter = Callable[[Columns, np.random.Generator], Columns]


def cutoff(
    columns: Columns, rng: np.random.Generator, *, rate: float, replace: str, special_ids: Sequence[int], hidden_id: int | None
) -> Columns:
    """The row without one span of its tokens, or with `hidden_id` in their place. Shen et al. 2020 (span cut-off):
    https://arxiv.org/abs/2009.13818

    Special tokens do not count and stay where they are.
    """
    places = _places(columns, special_ids)
    if len(places) < 2:
        return columns
    length = min(max(1, round(rate * len(places))), len(places) - 1)
    start = rng.integers(len(places) - length + 1)
    span = places[start : start + length]
    if replace == "nothing":
        return {name: np.delete(values, span) for name, values in columns.items()}
    return _hidden(columns, span, hidden_id)


def mask(
    columns: Columns, rng: np.random.Generator, *, rate: float, special_ids: Sequence[int], hidden_id: int | None
) -> Columns:
    """The row with each token, special ones apart, replaced by `hidden_id` with probability `rate`; one always stays."""
    places = _places(columns, special_ids)
    is_hidden = rng.random(len(places)) < rate
    if len(places) and is_hidden.all():
        is_hidden[rng.integers(len(places))] = False
    return _hidden(columns, places[is_hidden], hidden_id)


TOKEN_AUGMENTERS: dict[str, Callable[..., Columns]] = {
    "cutoff": cutoff,
    "mask": mask,
}


def build(augment: dict[str, AugmentConfig], *, special_ids: Sequence[int], hidden_id: int | None) -> TokenAugmenter | None:
    """All augmenters of tokens as one, applied in written order; None if there are none.

    Args:
        augment: of which those count that change tokens.
        special_ids: tokens that are left alone.
        hidden_id: stands for a hidden token; None: the tokenizer has no token that could.

    Raises:
        ConfigError: one is needed.
    """
    chosen = {name: section for name, section in augment.items() if isinstance(section, TokenAugment)}
    for name, section in chosen.items():
        if hidden_id is None and (section.type == "mask" or section.replace == "mask"):
            remedy = f"augment.{name}.replace=nothing" if section.type == "cutoff" else "augment=cutoff, or drop"
            raise ConfigError([f"augment.{name}: the tokenizer has neither a mask token nor an unknown one: use {remedy}"])
    made = {"special_ids": special_ids, "hidden_id": hidden_id}
    steps = [partial(TOKEN_AUGMENTERS[s.type], **s.model_dump(exclude={"type"}), **made) for s in chosen.values()]
    return partial(_apply, steps) if steps else None


def hides(augment: dict[str, AugmentConfig]) -> bool:
    """Whether a token comes up that stands for hidden ones."""
    return any(isinstance(s, TokenAugment) and getattr(s, "replace", "mask") == "mask" for s in augment.values())


def _apply(steps: list[TokenAugmenter], columns: Columns, rng: np.random.Generator) -> Columns:
    for step in steps:
        columns = step(columns, rng)
    return columns


def _places(columns: Columns, special_ids: Sequence[int]) -> np.ndarray:
    """Where tokens stand that are not special."""
    return np.flatnonzero(~np.isin(columns["input_ids"], special_ids))


def _hidden(columns: Columns, places: np.ndarray, hidden_id: int) -> Columns:
    ids = columns["input_ids"].copy()
    ids[places] = hidden_id
    return {**columns, "input_ids": ids}
