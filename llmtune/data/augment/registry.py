"""The table of augmenters."""

from collections.abc import Callable
from functools import partial

import numpy as np

from llmtune.config.sections.augment import AugmentConfig
from llmtune.data.augment import words

Augmenter = Callable[[str, np.random.Generator], str]

AUGMENTERS: dict[str, Callable[..., str]] = {
    "drop": words.drop,
    "swap": words.swap,
}


def build(augment: dict[str, AugmentConfig]) -> Augmenter:
    """All augmenters as one, applied in written order; a pure function of the text and the generator's key."""
    steps = [partial(AUGMENTERS[config.type], **config.model_dump(exclude={"type"})) for config in augment.values()]
    return partial(_apply, steps)


def _apply(steps: list[Augmenter], text: str, rng: np.random.Generator) -> str:
    for step in steps:
        text = step(text, rng)
    return text
