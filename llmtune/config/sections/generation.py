"""How a model writes."""

from typing import Annotated

from pydantic import Field

from llmtune.config.sections.base import Count, Name, Positive, Section
from llmtune.config.sections.model import CHATS

WRITING = ("causal_lm", *CHATS)  # tasks whose models write text


class Sampling(Section):
    """How the next token is chosen, and when a text ends."""

    max_new_tokens: Count
    """Tokens that a model writes at most for each text."""
    temperature: Annotated[float, Field(ge=0, le=100)]
    """0: always the likeliest token; 1: each token as often as the model says; below 1 the likely ones more often."""
    top_k: Count | None
    """Draw among this many likeliest tokens; null: all."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Draw among the likeliest tokens that together have this probability (nucleus sampling)."""
    min_p: Annotated[float, Field(ge=0, le=1)]
    """Draw among tokens that have at least this share of the likeliest one's probability."""
    repetition_penalty: Positive
    """Above 1: tokens that were read or written before become less likely."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Decides every draw: a text depends on it and on the number of its row, not on the rows beside it."""
    stop: tuple[Name, ...]
    """Texts at which writing ends; they are cut off."""

    def sampling(self) -> "Sampling":
        """These keys alone, of a larger config."""
        return Sampling(**{name: getattr(self, name) for name in Sampling.model_fields})


DRAWING = ("top_k", "top_p", "min_p", "seed")  # keys that only act where tokens are drawn
