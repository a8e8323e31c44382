"""Rows that hold conversations, in any of the ways in which people write them, as lists of messages.

A message is {"role": "system", "user" or "assistant", "content": text}. A conversation is a system message, if there is one,
and then user and assistant in turns, the user first and the assistant last. Prompts, which a model is to answer, end with the
user: answers that stand behind the user's last turn are left out, and need not be there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmtune import console
from llmtune.config.sections.data import LAYOUTS, ColumnMapping, LayoutColumns
from llmtune.data.readers.columns import Chunk, Wanted, listed, plain_text
from llmtune.errors import DataError

Message = dict[str, str]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_TOOLS = ("tool", "function", "function_call", "function_response", "observation", "ipython")
_REMOVE = "correct or remove the row; data.bad_conversations=drop leaves out all such rows, and counts them"
# Where prompts lie besides; they have no need of the other answer.
_OF_PROMPTS = {"implicit": LayoutColumns(("chosen",), ("system",))}
_ANSWERS = ("output", "completion")  # columns that prompts need not have
_NO_TOOLS = "remove such rows, or data.bad_conversations=drop"


@dataclass(frozen=True)
class Layout:
    """The columns of a file that hold its conversations.

    Attributes:
        name: of the way in which they are written, see `LAYOUTS`.
        columns: of the file, by what this way calls them; the optional ones may be missing.
    """

    name: str
    columns: dict[str, str]


class UnfitError(Exception):
    """A row holds no conversation that could be learned.

    Args:
        reason: in a few words, the same for all rows of the kind.
        told: of this row.
        remedy: what to do.
        is_wrong: whether the row is, or has just nothing to teach.
    """

    def __init__(self, reason: str, told: str | None = None, remedy: str = _REMOVE, *, is_wrong: bool = True):
        super().__init__(reason)
        self.reason, self.told, self.remedy, self.is_wrong = reason, told or reason, remedy, is_wrong


class Conversations:
    """Finds the columns of conversations, and reads them.

    Args:
        data: whose keys say how.
        are_prompts: whether they are read up to the user's last turn.

    Attributes:
        layouts: the ways in which they are written; where a file has the columns of several, the first counts.
        columns: that `read` makes, of a list of messages each.
    """

    layouts: Mapping[str, LayoutColumns] = LAYOUTS
    columns: tuple[str, ...] = ("messages",)
    _EXAMPLE = ("alpaca", "instruction: question, output: answer")

    def __init__(self, data: ColumnMapping, *, are_prompts: bool = False):
        self._data, self._are_prompts = data, are_prompts
        self._roles = {**ROLES, **data.roles}
        self._told: set[str] = set()
        self._dropped: Counter[str] = Counter()

    def wanted(self, wanted: Wanted, present: Sequence[str], where: str) -> Wanted:
        """What is wanted of a source with these columns, and the columns of its conversations.

        Raises:
            DataError: there are none.
        """
        layout = self._layout(present, where)
        self._tell(where, layout, present)
        return replace(wanted, nested=tuple(layout.columns.values()), choose=None)

    def read(self, name: str, chunk: Chunk) -> Chunk:
        """The rows with a conversation each; their `columns` are among what is nested.

        Raises:
            DataError: a row holds none, unless `data.bad_conversations` says to drop it.
        """
        layout = self._layout(list(chunk.nested), name)
        found: list[dict[str, list[Message]] | None] = []
        for i, row in enumerate(chunk.rows.tolist()):
            values = {ours: chunk.nested[theirs][i] for ours, theirs in layout.columns.items() if theirs in chunk.nested}
            try:
                found.append(self._row(values, layout))
            except UnfitError as e:
                if e.is_wrong and self._data.bad_conversations == "refuse":
                    raise DataError(e.told, where=f"{name}:{row}", remedy=e.remedy) from None
                self._dropped[e.reason] += 1
                found.append(None)
        keep = np.array([row is not None for row in found])
        kept = chunk if keep.all() else chunk.filter(keep)
        return replace(kept, nested={column: [row[column] for row in found if row is not None] for column in self.columns})

    def all_dropped(self) -> Counter[str]:
        """The rows that were left out since this was asked last, by reason."""
        dropped, self._dropped = self._dropped, Counter()
        return dropped

    def _layout(self, present: Sequence[str], where: str) -> Layout:
        renamed = self._data.conversation_columns
        wanted = self._data.conversation
        layouts = {**self.layouts, **_OF_PROMPTS} if self._are_prompts else self.layouts
        known = layouts if wanted == "auto" else {wanted: layouts[wanted]}
        for name, roles in known.items():
            columns = {role: renamed.get(role, role) for role in (*roles.required, *roles.optional)}
            if all(columns[role] in present for role in roles.required if not (self._are_prompts and role in _ANSWERS)):
                return Layout(name, {r: c for r, c in columns.items() if c in present or c in roles.optional})
        ways = "; or ".join(
            f"{name}: {' and '.join(renamed.get(role, role) for role in roles.required)}" for name, roles in known.items()
        )
        raise DataError(
            f"there are no conversations in the columns {listed(present, limit=20)}; they would be in {ways}",
            where=where,
            remedy=f"name the columns, such as data.conversation={self._EXAMPLE[0]} "
            f"'data.conversation_columns={{{self._EXAMPLE[1]}}}'",
        )

    def _tell(self, name: str, layout: Layout, present: Sequence[str]) -> None:
        told = f"{layout.name} (columns {', '.join(c for c in layout.columns.values() if c in present)})"
        if told not in self._told:
            self._told.add(told)
            key = "" if self._data.conversation != "auto" else f"; data.conversation={layout.name} insists"
            console.notice(f"{name}: conversations are read as {told}{key}")

    def _row(self, values: dict[str, Any], layout: Layout) -> dict[str, list[Message]]:
        """What is made of a row's values, by what the layout calls them."""
        return {"messages": in_turns(_READERS[layout.name](self, values, layout), are_prompts=self._are_prompts)}

    def _of_messages(self, values: dict[str, Any], layout: Layout) -> list[Message]:
        """A list of turns, and a system prompt beside it."""
        name = next(iter(layout.columns))
        return [*self._system(values), *self._turns(values[name], layout.columns[name])]

    def _of_alpaca(self, values: dict[str, Any], layout: Layout) -> list[Message]:
        asked = self._asked(values, layout)
        if self._are_prompts:
            return asked
        return [*asked, {"role": "assistant", "content": _text(values["output"], layout.columns["output"])}]

    def _asked(self, values: dict[str, Any], layout: Layout) -> list[Message]:
        """An instruction, with what it is to be applied to below it; earlier turns come first."""
        past = values.get("history") or []
        column = layout.columns.get("history", "history")
        if not isinstance(past, list):
            raise UnfitError("the history is no list", f"column '{column}' holds {_shown(past)}, no list of turns")
        if all(isinstance(turn, (list, tuple)) and len(turn) == 2 for turn in past):
            past = [turn for question, answer in past for turn in (("user", question), ("assistant", answer))]
            messages = [{"role": role, "content": _text(content, column)} for role, content in past]
        else:
            messages = self._turns(past, column)
        texts = [_text(values[name], layout.columns[name]) for name in ("instruction", "input") if values.get(name)]
        if not values.get("instruction"):
            column = layout.columns["instruction"]
            raise UnfitError("the instruction is empty", f"column '{column}' is empty: the row has no instruction")
        return [*self._system(values), *messages, {"role": "user", "content": "\n".join(texts)}]

    def _of_pair(self, values: dict[str, Any], layout: Layout) -> list[Message]:
        """A prompt and its completion; each a text, or turns."""
        messages = self._system(values)
        for name, role in (("prompt", "user"), ("completion", "assistant"))[: 1 if self._are_prompts else 2]:
            messages += self._said(values[name], role, layout.columns[name])
        return messages

    def _said(self, value: Any, role: str, column: str) -> list[Message]:
        """Turns as they are; a text is what `role` says."""
        if isinstance(value, list):
            return self._turns(value, column)
        return [{"role": role, "content": _text(value, column)}]

    def _system(self, values: dict[str, Any]) -> list[Message]:
        value = values.get("system")
        return [{"role": "system", "content": _text(value, "system")}] if value else []

    def _turns(self, value: Any, column: str) -> list[Message]:
        if not isinstance(value, (list, tuple)):
            told = "is empty" if value is None else f"holds {_shown(value)}, not a list of turns"
            raise UnfitError("the conversation is no list of turns", f"column '{column}' {told}")
        return [self._turn(turn, f"turn {number} in column '{column}'") for number, turn in enumerate(value, 1)]

    def _turn(self, turn: Any, where: str) -> Message:
        if not isinstance(turn, dict):
            raise UnfitError("a turn is no object", f"{where} is {_shown(turn)}, no object with a role and a content")
        role_key = next((key for key in ("role", "from") if key in turn), None)
        key = next((key for key in ("content", "value") if key in turn), None)
        if role_key is None or key is None:
            lacks = "'role' (or 'from')" if role_key is None else "'content' (or 'value')"
            raise UnfitError("a turn lacks a key", f"{where} has no {lacks}; there are {listed(list(turn))}")
        role = turn[role_key]
        if role in _TOOLS or turn.get("tool_calls") or turn.get("function_call"):
            raise UnfitError("a turn calls a tool", f"{where} calls a tool, which is not supported", _NO_TOOLS)
        if not isinstance(role, str) or role not in self._roles:
            known = listed(list(self._roles), limit=20)
            shown = role if isinstance(role, str) and role else "NAME"
            remedy = f"say what it is with 'data.roles={{{shown}: assistant}}', or correct the row"
            raise UnfitError("an unknown role", f"{where} has the unknown role {_shown(role)}; known are {known}", remedy)
        return {"role": self._roles[role], "content": _content(turn[key], f"'{key}' of {where}")}


_READERS = {
    "messages": Conversations._of_messages,
    "sharegpt": Conversations._of_messages,
    "alpaca": Conversations._of_alpaca,
    "prompt_completion": Conversations._of_pair,
    "implicit": Conversations._of_messages,
}


def in_turns(messages: list[Message], *, are_prompts: bool = False) -> list[Message]:
    """The messages, if they are a conversation, or a prompt: up to the user's last turn.

    Raises:
        UnfitError: they are not.
    """
    while are_prompts and messages and messages[-1]["role"] != "user":
        messages = messages[:-1]
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if not turns:
        raise UnfitError("the conversation is empty", "the conversation is empty: it has no turn of a user or an assistant")
    if not are_prompts and all(turn["role"] != "assistant" for turn in turns):
        raise UnfitError(
            "no turn of the assistant", "no turn of the conversation is the assistant's: there is nothing to learn"
        )
    for number, (turn, role) in enumerate(zip(turns, ("user", "assistant") * len(turns), strict=False), 1):
        if turn["role"] != role:
            told = f"turn {number} (without a system message) is the {turn['role']}'s, where the {role}'s is due"
            raise UnfitError("turns do not alternate", f"{told}: user and assistant take turns, the user first")
        if not turn["content"].strip():
            raise UnfitError(f"the {role} says nothing", f"turn {number} (without a system message), the {role}'s, is empty")
    if not are_prompts and turns[-1]["role"] == "user":
        raise UnfitError("the last turn is the user's", "the last turn is the user's: it has no answer")
    return messages


def _content(value: Any, where: str) -> str:
    """The text of a turn; parts of text are joined."""
    if isinstance(value, (list, tuple)):
        kinds = [part.get("type", "text") if isinstance(part, dict) else None for part in value]
        other = next((kind for kind in kinds if kind != "text"), "")
        texts = [part.get("text") for part in value if isinstance(part, dict)]
        if other != "" or not all(isinstance(text, str) for text in texts):
            told = f"{where} holds a part of the kind {_shown(other)}: only texts can be learned"
            raise UnfitError("a turn is not text alone", told, _NO_TOOLS)
        value = "".join(texts)
    if not isinstance(value, str):
        raise UnfitError("a content is no text", f"{where} is {_shown(value)}, not text")
    return _unbroken(value, where)


def _text(value: Any, column: str) -> str:
    """A single value as text."""
    try:
        text = plain_text(value)
    except TypeError as e:
        raise UnfitError("a column holds no text", f"column '{column}' holds {e}, not text") from None
    if text is None:
        raise UnfitError(f"'{column}' is missing", f"the row has no '{column}'")
    return _unbroken(text, f"column '{column}'")


def _unbroken(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnfitError("half of a surrogate pair", f"{where} holds half of a surrogate pair") from None
    return text


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)[:60]
