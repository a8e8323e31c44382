"""One text that is being written: its tokens, its text, and why it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerFast

from llmtune.config.sections.generation import Sampling
from llmtune.generation.detokenizer import Detokenizer
from llmtune.randomness import generator

DRAWS = 256  # numbers that are drawn at once

FinishReason = Literal["stop", "length", "window", "interrupted"]


@dataclass(frozen=True)
class Answer:
    """What a model wrote.

    Attributes:
        text: without the prompt, special tokens and the stop text.
        finish_reason: stop: an end token or a stop text came; length: max_new_tokens; window: the model can read no more;
            interrupted: from outside.
        num_tokens: that were written, without the end token.
    """

    text: str
    finish_reason: FinishReason
    num_tokens: int


class Row:
    """A prompt and what has been written behind it.

    Args:
        prompt: token ids.
        key: of the row's own draws.
        how: sampling.
        tokenizer: for the text.
        ends: tokens that end it.
        window: most tokens that the model can read; None: any number.
        slides: whether the beginning is forgotten when the window is full. Else it ends there.
        is_shown: whether somebody reads along.

    Attributes:
        tokens: prompt and answer.
        context: the part of them that the model reads.
        finish_reason: None until it is finished.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        *,
        key: int,
        how: Sampling,
        tokenizer: PreTrainedTokenizerFast,
        ends: frozenset[int],
        window: int | None,
        slides: bool,
        is_shown: bool = False,
    ):
        self.tokens, self.num_prompt = list(prompt), len(prompt)
        self._how, self._tokenizer, self._ends, self._window, self._slides = how, tokenizer, ends, window, slides
        self._key, self._uniform_T = key, np.empty(0)
        self._is_read_along = is_shown or bool(how.stop)
        self._detokenizer = Detokenizer(tokenizer)
        self._text, self._num_shown = "", 0
        self._start = 0  # of the context
        self.finish_reason: FinishReason | None = None
        self._fit()

    @property
    def context(self) -> list[int]:
        return self.tokens[self._start :]

    @property
    def has_slid(self) -> bool:
        """Whether the model has not read all of the tokens."""
        return self._start > 0

    @property
    def num_written(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def uniform(self) -> float:
        """The number that decides about the next token."""
        block, place = divmod(self.num_written, DRAWS)
        if place == 0 or not len(self._uniform_T):
            self._uniform_T = generator(self._how.seed, "sample", self._key, block).random(DRAWS)
        return self._uniform_T[place]

    def take(self, token: int) -> bool:
        """Write one more token, or end. Returns whether the context has lost its beginning."""
        if token in self._ends:
            self._finish("stop")
            return False
        self.tokens.append(token)
        if self._is_read_along:
            self._write(self._detokenizer.add(token))
        if self.finish_reason is None and self.num_written == self._how.max_new_tokens:
            self._finish("length")
        return self.finish_reason is None and self._fit()

    def interrupt(self) -> None:
        self._finish("interrupted")

    def fresh(self) -> str:
        """What is new of the text since the last call, and can no longer turn out to be the start of a stop text."""
        sure = len(self._text) if self.finish_reason else len(self._text) - self._num_doubtful()
        shown, self._num_shown = self._text[self._num_shown : sure], max(self._num_shown, sure)
        return shown

    def answer(self) -> Answer:
        if not self._is_read_along:
            self._text = self._tokenizer.decode(self.tokens[self.num_prompt :], skip_special_tokens=True)
        return Answer(self._text, self.finish_reason, self.num_written)

    def _fit(self) -> bool:
        """End where the window is full, or forget the beginning: at least half a window stays, and what comes fits behind it.

        A slide costs a new reading of all that stays, since positions move: half a window at a time, it is rarely due.
        """
        if self._window is None or len(self.tokens) - self._start <= self._window:
            return False
        if not self._slides:
            self._finish("window")
            return False
        to_come = self._how.max_new_tokens - self.num_written
        self._start = len(self.tokens) - max(self._window - to_come, self._window // 2, 1)
        return True

    def _finish(self, reason: FinishReason) -> None:
        self.finish_reason = reason
        if self._is_read_along:
            self._write(self._detokenizer.rest())

    def _write(self, added: str) -> None:
        if not added:
            return
        searched = max(0, len(self._text) - max(map(len, self._how.stop), default=0))
        self._text += added
        found = [place for text in self._how.stop if (place := self._text.find(text, searched)) >= 0]
        if found:
            self._text, self.finish_reason = self._text[: min(found)], "stop"

    def _num_doubtful(self) -> int:
        """Length of the longest end of the text with which a stop text begins."""
        longest = min(len(self._text), max(map(len, self._how.stop), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if any(t.startswith(self._text[-n:]) for t in self._how.stop)), 0)
