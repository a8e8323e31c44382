"""A talk with a model, turn by turn, within its window."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmtune.errors import DataError
from llmtune.generation.prompts import Prompts
from llmtune.generation.row import Answer
from llmtune.generation.writer import Writer
from llmtune.tasks.chat import Message


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        answer: of the model.
        num_forgotten: turns at the beginning that it has not read this time, and had the last time.
    """

    answer: Answer
    num_forgotten: int


class Talk(Protocol):
    """What one can do with either kind of talk."""

    def say(self, text: str, *, show: Callable[[str], None], is_stopping: Callable[[], bool]) -> Reply:
        """Let the model answer; `show` gets its words as they come, `is_stopping` is asked after each token."""
        ...

    def reset(self) -> None:
        """Forget all that was said."""
        ...

    def saved(self) -> dict[str, Any]:
        """All that was said, as a row of training data."""
        ...


class Conversation:
    """A conversation by the chat template. Where it outgrows the window, the oldest turns are no longer read.

    The system message stays. For the answer a quarter of the window is kept free, or max_new_tokens, if that is less.

    Args:
        writer: of the model.
        prompts: of the model.
        system: the first message; None: the one that the model was trained with, if there was one.
        max_new_tokens: of an answer.
    """

    def __init__(self, writer: Writer, prompts: Prompts, *, system: str | None, max_new_tokens: int):
        self._writer, self._prompts, self._system = writer, prompts, system
        window = prompts.window
        self._room = None if window is None else window - min(max_new_tokens, window // 4)
        self._turns: list[Message] = []
        self._first = 0  # turn that is read
        self._num_answers = 0

    def say(self, text: str, *, show: Callable[[str], None], is_stopping: Callable[[], bool]) -> Reply:
        """See `Talk`.

        Raises:
            DataError: the text alone is too long for the window, or the template refuses it.
        """
        self._turns.append({"role": "user", "content": text})
        try:
            prompt, first = self._fitting()
            answer = self._writer.answer(prompt, key=self._num_answers, show=show, is_stopping=is_stopping)
        except BaseException:
            self._turns.pop()
            raise
        self._num_answers += 1
        self._turns.append({"role": "assistant", "content": answer.text})
        num_forgotten, self._first = first - self._first, first
        return Reply(answer, num_forgotten)

    def reset(self, *, system: str | None = None) -> None:
        """Forget all that was said; begin with another system message, if one is given."""
        self._turns, self._first = [], 0
        self._system = system or self._system

    def saved(self) -> dict[str, Any]:
        return {"messages": [*self._opening(), *self._turns]}

    def _opening(self) -> list[Message]:
        return [] if self._system is None else [{"role": "system", "content": self._system}]

    def _fitting(self) -> tuple[list[int], int]:
        """The prompt, and the first turn that it holds."""
        first = self._first
        while True:
            prompt = self._prompts.of_messages([*self._opening(), *self._turns[first:]])
            if self._room is None or len(prompt) <= self._room:
                return prompt, first
            if first + 1 == len(self._turns):
                raise DataError(
                    f"the message does not fit: with it the model would read {len(prompt):,} tokens, and its window of "
                    f"{self._prompts.window:,} leaves room for {self._room:,} beside the answer",
                    remedy="say it in fewer words",
                )
            first += 2


class Continuation:
    """A text that one writes together with a model that knows no turns.

    Args:
        writer: of the model; it slides where the window is full.
        prompts: of the model.
    """

    def __init__(self, writer: Writer, prompts: Prompts):
        self._writer, self._prompts = writer, prompts
        self._text = ""
        self._num_answers = 0

    def say(self, text: str, *, show: Callable[[str], None], is_stopping: Callable[[], bool]) -> Reply:
        """See `Talk`."""
        before = f"{self._text}\n{text}" if self._text else text
        key = self._num_answers
        answer = self._writer.answer(self._prompts.of_text(before), key=key, show=show, is_stopping=is_stopping)
        self._text, self._num_answers = before + answer.text, key + 1
        return Reply(answer, 0)

    def reset(self) -> None:
        self._text = ""

    def saved(self) -> dict[str, Any]:
        return {"text": self._text}


def save(path: Path, talk: Talk) -> None:
    """Add what was said to a file of JSON lines, that training reads."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(talk.saved(), ensure_ascii=False) + "\n")
