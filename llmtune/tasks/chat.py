"""Conversations as token ids, and which of these are the answers'. A message is {"role": ..., "content": ...}."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jinja2 import TemplateError
from tokenizers import processors
from transformers.utils.chat_template_utils import render_jinja_template

from llmtune.errors import DataError, ModelError

Message = dict[str, str]
Span = tuple[int, int]

_MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_ANSWER = "Quizzical"  # of a probe; no template writes it by itself
_PROBE = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": _ANSWER}]
# What a template can raise besides an error of its own, when it handles a conversation wrongly.
_FAULTS = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)


@dataclass(frozen=True)
class Written:
    """A conversation as tokens.

    Attributes:
        ids: of its tokens up to the last that is learned.
        answers: first token of each answer that is learned, and the one behind its last, in turns.
    """

    ids: list[int]
    answers: list[int]


class Chat:
    """A tokenizer that writes conversations by its chat template.

    Args:
        tokenizer: with a `chat_template`; it is set to tell where tokens begin with the space before them.
        answers: which turns of the assistant are learned: 'all' or the 'last'.
        system_prompt: first message of a conversation that has no system message; None: there is none.
    """

    def __init__(self, tokenizer: Any, *, answers: str = "all", system_prompt: str | None = None):
        self.tokenizer, self.answers, self.system_prompt = tokenizer, answers, system_prompt
        self._template = tokenizer.get_chat_template()
        self._marks_answers = bool(_MARKS_ANSWERS.search(self._template))
        # Post-processors would shift the beginning of a token past its space; they add nothing here.
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)

    def prompt(self, messages: Sequence[Message]) -> str:
        """What a model reads before it answers the last message.

        Raises:
            DataError: the template refuses the conversation.
        """
        return self._render(self._with_system(messages), is_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of `prompt`."""
        return self._tokens(self.prompt(messages))[0]

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer, the one that the template or training puts there first.

        Raises:
            ModelError: there is none.
        """
        written = self._end_of_template
        eos = self.tokenizer.eos_token_id
        found = tuple(dict.fromkeys(token for token in (written, eos) if token is not None))
        if not found:
            remedy = "use a tokenizer with an eos_token, or task.template=chatml"
            raise ModelError("the tokenizer has no token that could end an answer", remedy=remedy)
        return found

    def write(self, conversations: Sequence[Sequence[Message]]) -> list[Written]:
        """Conversations whole, uncut, as training sees them.

        An answer reaches from what `prompt` ends with to the token that ends the turn, which is added if the template has none.

        Raises:
            DataError: see `spans`; its `where` is the number of the conversation.
        """
        rendered = []
        for number, messages in enumerate(conversations):
            try:
                rendered.append(self.spans(messages))
            except DataError as e:
                raise DataError(e.message, where=str(number), remedy=e.remedy) from None
        # With the text before each answer, since a tokenizer may join it with what follows as no prompt would be.
        texts = [part for text, spans in rendered for part in (text, *(text[:start] for start, _ in spans))]
        encoded = iter(self._encode(texts))
        return [self._written(text, spans, next(encoded), [next(encoded)[0] for _ in spans]) for text, spans in rendered]

    def spans(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        """A conversation as text, and where the answers that are learned begin and end in it, in characters.

        Raises:
            DataError: the template refuses the conversation, or writes a turn otherwise once more turns follow.
        """
        messages = self._with_system(messages)
        if self._marks_answers:
            text, marked = self._marked(messages)
            spans = [(start, end) for start, end in marked if start < end]
            if not spans:
                raise DataError(
                    "the chat template marks no token of the conversation as an answer's",
                    remedy="set another template, such as task.template=chatml",
                )
            return text, spans if self.answers == "all" else spans[-1:]
        text, spans = self._render(messages), []
        numbers = [k for k, message in enumerate(messages) if message["role"] == "assistant"]
        for k in numbers if self.answers == "all" else numbers[-1:]:
            before = self._render(messages[:k], is_prompt=True)
            upto = self._render(messages[: k + 1]) if k + 1 < len(messages) else text
            if not text.startswith(before) or not text.startswith(upto):
                raise DataError(
                    f"the chat template writes turn {k + 1} otherwise once more turns follow, so that nobody can tell which "
                    "tokens are the answer's",
                    remedy="set task.answers=last, or another template, such as task.template=chatml",
                )
            spans.append((len(before), len(upto)))
        return text, spans

    @cached_property
    def _end_of_template(self) -> int | None:
        """The special token that the template puts behind an answer; None: it puts none."""
        text, spans = self.spans(_PROBE)
        behind = text[spans[-1][0] :].partition(_ANSWER)[2]
        special = {*self.tokenizer.all_special_ids}
        special |= {token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special}
        return next((token for token in self._tokens(behind)[0] if token in special), None)

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        if self.system_prompt is None or (messages and messages[0]["role"] == "system"):
            return list(messages)
        return [{"role": "system", "content": self.system_prompt}, *messages]

    def _render(self, messages: Sequence[Message], *, is_prompt: bool = False) -> str:
        return self._rendered(messages, add_generation_prompt=is_prompt)[0][0]

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        texts, spans = self._rendered(messages, return_assistant_tokens_mask=True)
        return texts[0], spans[0]

    def _rendered(self, messages: Sequence[Message], **options: Any) -> tuple[list[str], list[list[Span]]]:
        """In transformers' sandbox, which lets a template change nothing and call nothing."""
        try:
            return render_jinja_template(
                [list(messages)], chat_template=self._template, **options, **self.tokenizer.special_tokens_map
            )
        except _FAULTS as e:
            raise DataError(
                f"the chat template refuses the conversation: {str(e) or type(e).__name__}",
                remedy="correct or remove the row, or set another template, such as task.template=chatml",
            ) from None

    def _tokens(self, text: str) -> tuple[list[int], np.ndarray]:
        return self._encode([text])[0]

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], np.ndarray]]:
        """Token ids of each text, and where each begins and ends in it, int64 [L, 2]."""
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        encoded = backend.encode_batch(list(texts), add_special_tokens=False)
        return [(row.ids, np.array(row.offsets, dtype=np.int64).reshape(-1, 2)) for row in encoded]

    def _written(self, text: str, spans: list[Span], row: tuple[list[int], np.ndarray], prompts: list[list[int]]) -> Written:
        ids, offsets_L2 = row
        joined = [start for (start, _), prompt in zip(spans, prompts, strict=True) if ids[: len(prompt)] != prompt]
        if joined:
            ids, offsets_L2 = self._in_pieces(text, joined)
        answers: list[int] = []
        for start, end in spans:
            first, behind = np.searchsorted(offsets_L2[:, 0], (start, end)).tolist()
            behind = self._behind_end(ids, first, behind)
            answers += [first, behind]
        if self._end_of_template is None and answers[-1] == len(ids):
            ids, answers[-1] = [*ids, self.end_ids[0]], len(ids) + 1
        return Written(list(ids[: answers[-1]]), answers)

    def _in_pieces(self, text: str, starts: list[int]) -> tuple[list[int], np.ndarray]:
        """A text whose tokens depend on how an answer begins: cut there, as a model meets it that goes on with a prompt."""
        bounds = [0, *starts, len(text)]
        parts = self._encode([text[start:end] for start, end in zip(bounds, bounds[1:], strict=False)])
        ids = [token for part, _ in parts for token in part]
        return ids, np.concatenate([offsets + start for (_, offsets), start in zip(parts, bounds, strict=False)])

    def _behind_end(self, ids: list[int], first: int, behind: int) -> int:
        """The place behind the token that ends an answer: white space of the template's that follows it is not learned."""
        if behind < len(ids) and ids[behind] in self.end_ids:
            return behind + 1
        ends = [i for i in range(first, behind) if ids[i] in self.end_ids]
        return ends[-1] + 1 if ends else behind
