"""Rows with a better and a worse answer to the same conversation, in any of the ways in which people write them.

Of each row, two conversations are made that are equal but for their last turn: `messages`, which ends with the chosen answer,
and `rejected`, which ends with the other one.
"""

from typing import Any

from llmtune.config.sections.data import PREFERENCE_LAYOUTS
from llmtune.data.conversations import Conversations, Layout, Message, UnfitError, in_turns

ALIKE = "chosen equals rejected"
_SAME_PROMPT = "let both answers follow the same conversation, or data.bad_conversations=drop leaves out all such rows"
_OWN_PROMPT = "correct the row; or data.conversation=implicit, which reads the columns of the answers alone"
_NO_PROMPT = (
    "name its column, such as 'data.conversation_columns={prompt: question}'; or write chosen and rejected as lists of turns"
)


class Preferences(Conversations):
    """Finds the columns of preferences, and reads them. Rows with twice the same answer are left out and counted."""

    layouts = PREFERENCE_LAYOUTS
    columns = ("messages", "rejected")
    _ANSWERS = ("chosen", "rejected")
    _EXAMPLE = ("prompt_completion", "prompt: question, chosen: better, rejected: worse")

    def _row(self, values: dict[str, Any], layout: Layout) -> dict[str, list[Message]]:
        prompt = self._prompt(values, layout)
        chosen, rejected = (self._whole(prompt, values[name], layout.columns[name]) for name in self._ANSWERS)
        names = " and ".join(f"'{layout.columns[name]}'" for name in self._ANSWERS)
        if chosen[:-1] != rejected[:-1]:
            reason = "the answers follow different conversations"
            told = f"columns {names} are conversations that differ before their last turn"
            raise UnfitError(reason, told, _SAME_PROMPT)
        if chosen == rejected:
            raise UnfitError(ALIKE, is_wrong=False)
        return {"messages": chosen, "rejected": rejected}

    def _prompt(self, values: dict[str, Any], layout: Layout) -> list[Message]:
        """What stands beside the answers: it may be all of the conversation before them, or a part of it."""
        match layout.name:
            case "alpaca":
                return self._asked(values, layout)
            case "prompt_completion":
                return [*self._system(values), *self._said(values["prompt"], "user", layout.columns["prompt"])]
            case "implicit":
                return self._system(values)
            case _:
                return self._of_messages(values, layout)

    def _whole(self, prompt: list[Message], answer: Any, column: str) -> list[Message]:
        """A conversation to the end of one answer: a text, a turn, or turns, of which the first may be those of the prompt."""
        if isinstance(answer, dict):
            said = [self._turn(answer, f"column '{column}'")]
        else:
            said = self._said(answer, "assistant", column)
        if said and said[0]["role"] != "assistant":
            messages = _beginning_with(prompt, said, column)
        elif _parted(prompt)[1]:
            messages = [*prompt, *said]
        else:
            raise UnfitError("there is no prompt", f"column '{column}' holds an answer, and nothing tells to what", _NO_PROMPT)
        try:
            return in_turns(messages)
        except UnfitError as e:
            raise UnfitError(e.reason, f"with the answer of column '{column}', {e.told}", e.remedy) from None


def _beginning_with(prompt: list[Message], conversation: list[Message], column: str) -> list[Message]:
    """A whole conversation, which has to begin as the prompt does; either may lack the system message of the other."""
    (system, asked), (own_system, turns) = _parted(prompt), _parted(conversation)
    if turns[: len(asked)] != asked or (system and own_system and system != own_system):
        told = f"the conversation in column '{column}' does not begin with the row's prompt"
        raise UnfitError("an answer's conversation does not begin with the prompt", told, _OWN_PROMPT)
    return [*(own_system or system), *turns]


def _parted(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """The system message, if there is one, and the turns."""
    num_system = int(bool(messages) and messages[0]["role"] == "system")
    return messages[:num_system], messages[num_system:]
