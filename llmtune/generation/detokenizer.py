"""Tokens back to text while they come, whole characters at a time."""

from transformers import PreTrainedTokenizerFast

UNFINISHED = "\ufffd"  # what a decoder makes of the first bytes of a character


class Detokenizer:
    """The text of a growing list of tokens, without special ones.

    What a token adds depends on its neighbours (a blank before a word, the bytes of one character in several tokens), so
    the last whole part is decoded with and without the new tokens, and the difference is what they add.

    Attributes:
        ids: the tokens so far.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self._tokenizer = tokenizer
        self.ids: list[int] = []
        self._start = self._end = 0  # of the last part whose text is whole

    def add(self, token: int) -> str:
        """What is whole now; '' while a character is unfinished."""
        self.ids.append(token)
        return "" if (added := self._added()).endswith(UNFINISHED) else self._taken(added)

    def rest(self) -> str:
        """What is still unfinished, with U+FFFD in place of half characters. The text ends with it."""
        return self._taken(self._added())

    def _added(self) -> str:
        return self._decode(self._start, len(self.ids))[len(self._decode(self._start, self._end)) :]

    def _taken(self, added: str) -> str:
        if added:
            self._start, self._end = self._end, len(self.ids)
        return added

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self.ids[start:end], skip_special_tokens=True)
