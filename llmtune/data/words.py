"""Token ids of many texts by their words: each distinct word is tokenized once, however often it occurs.

The ids are those of the whole texts if what stands before a space and what stands behind it do not depend on each other, and
the space itself has no token: with tokenizers that normalize by the character, split at all white space, and then look up
each word for itself.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer, models

from llmtune.data.tokenizer import WORD

_MOST_WORDS, _MOST_BYTES = 200_000, 1 << 24  # that are remembered
_LARGEST_SHARE_OF_NEW = 0.5  # a word alone takes about twice as long as within its text
_SPLITTING = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_LOOKING_UP = (models.WordPiece, models.WordLevel)
_TEMPLATES = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")


@dataclass(frozen=True)
class _Piece:
    """What each row has at this place: a special token, or a text by its number."""

    token: int | None
    text: int | None
    type_id: int


@dataclass(frozen=True)
class _Tokens:
    """Token ids of several texts, int32, and where in them those of each text start and how many they are, int64."""

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray


class WordEncoder:
    """Gives the ids that a tokenizer's `encode_batch_fast` gives, and remembers the words of the calls before.

    Args:
        tokenizer: that goes word by word; it is used up.
        pieces: of a row.
        max_length: tokens of a row; of a pair, the longer text is cut first.
        keeps_end: whether a text is cut at its beginning.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: Sequence[_Piece], *, max_length: int, keeps_end: bool):
        self._tokenizer, self._pieces, self._keeps_end = tokenizer, pieces, keeps_end
        self._num_special = sum(piece.text is None for piece in pieces)
        self._room = max_length - self._num_special
        self.num_truncated = 0  # rows that were cut so far
        self._forget()

    def encode(self, *texts: pa.Array) -> tuple[pa.Array, pa.Array] | None:
        """Token ids and token type ids of each row, lists of int32; None if the whole texts are sooner tokenized.

        Args:
            texts: one column of strings, or two for pairs; without nulls.
        """
        found = [self._tokens(column) for column in texts]
        return None if any(tokens is None for tokens in found) else self._rows(self._cut(found))

    def _tokens(self, texts: pa.Array) -> _Tokens | None:
        words, bounds = _words(texts)
        places = pc.index_in(words, value_set=self._words)
        if places.null_count:
            new = words.filter(places.is_null()).unique()
            if len(self._words) + len(new) > _MOST_WORDS or self._words.nbytes + new.nbytes > _MOST_BYTES:
                self._forget()
                new = words.unique()
            if len(new) > _LARGEST_SHARE_OF_NEW * len(words):
                return None
            self._learn(new)
            places = pc.index_in(words, value_set=self._words)
        ids = self._ids.take(places)
        token_bounds = ids.offsets.to_numpy()[bounds].astype(np.int64)
        return _Tokens(ids.values.to_numpy(), token_bounds[:-1], np.diff(token_bounds))

    def _forget(self) -> None:
        self._words, self._ids = pa.array([], pa.string()), pa.array([], pa.list_(pa.int32()))

    def _learn(self, words: pa.Array) -> None:
        encoded = self._tokenizer.encode_batch_fast(words.to_pylist(), add_special_tokens=False)
        ids = pa.array([word.ids for word in encoded], self._ids.type)
        self._words, self._ids = pa.concat_arrays([self._words, words]), pa.concat_arrays([self._ids, ids])

    def _cut(self, texts: list[_Tokens]) -> list[_Tokens]:
        lengths = [text.lengths for text in texts]
        kept = [np.minimum(lengths[0], self._room)] if len(texts) == 1 else _kept_of_pairs(*lengths, room=self._room)
        self.num_truncated += int(np.any([part < whole for whole, part in zip(lengths, kept, strict=True)], axis=0).sum())
        skipped = [whole - part if self._keeps_end else 0 for whole, part in zip(lengths, kept, strict=True)]
        return [_Tokens(t.ids, t.starts + s, k) for t, s, k in zip(texts, skipped, kept, strict=True)]

    def _rows(self, texts: list[_Tokens]) -> tuple[pa.Array, pa.Array]:
        bounds = np.concatenate([[0], np.cumsum(sum(text.lengths for text in texts) + self._num_special)])
        ids, types = np.empty(bounds[-1], dtype=np.int32), np.empty(bounds[-1], dtype=np.int32)
        at = bounds[:-1].copy()  # where the next piece of each row begins
        for piece in self._pieces:
            if piece.text is None:
                ids[at], types[at] = piece.token, piece.type_id
                at += 1
            else:
                text = texts[piece.text]
                places = _runs(at, text.lengths)
                ids[places], types[places] = text.ids[_runs(text.starts, text.lengths)], piece.type_id
                at += text.lengths
        offsets = pa.array(bounds, pa.int32())
        return pa.ListArray.from_arrays(offsets, pa.array(ids)), pa.ListArray.from_arrays(offsets, pa.array(types))


def word_encoder(tokenizer: Tokenizer, *, num_texts: int) -> WordEncoder | None:
    """An encoder that gives what a tokenizer gives; None if it is not known to go word by word.

    Args:
        tokenizer: set to truncate by `longest_first`; it stays as it is.
        num_texts: of a row: 1, or 2 for pairs.
    """
    cut = tokenizer.truncation
    assert cut["strategy"] == "longest_first" and not cut["stride"]
    if not isinstance(tokenizer.model, _LOOKING_UP) or not _goes_word_by_word(written := tokenizer.to_str(), tokenizer):
        return None
    own = Tokenizer.from_str(written)
    own.encode_special_tokens = tokenizer.encode_special_tokens
    own.no_truncation()
    own.no_padding()
    pieces = _pieces(own, num_texts)
    texts = [piece.text for piece in pieces if piece.text is not None]
    if sorted(texts) != list(range(num_texts)) or len(pieces) - num_texts >= cut["max_length"]:
        return None
    return WordEncoder(own, pieces, max_length=cut["max_length"], keeps_end=cut["direction"] == "left")


def _goes_word_by_word(written: str, tokenizer: Tokenizer) -> bool:
    parts = json.loads(written)
    model, splitting, finishing = parts["model"], parts["pre_tokenizer"], parts["post_processor"]
    own = {"type": "Split", "pattern": {"Regex": WORD}, "behavior": "Removed", "invert": True}
    return (
        (parts["normalizer"] is None or parts["normalizer"]["type"] == "BertNormalizer")
        and splitting is not None
        and (splitting["type"] in _SPLITTING or splitting == own)
        and model["unk_token"] in model["vocab"]
        and (finishing is None or finishing["type"] in _TEMPLATES)
        and not any(_has_space(token, tokenizer) for token in parts["added_tokens"])
    )


def _has_space(added_token: dict, tokenizer: Tokenizer) -> bool:
    """Whether a token that is found before words are looked up could begin in one word and end in another."""
    content = added_token["content"]
    if added_token["normalized"] and tokenizer.normalizer is not None:
        content = tokenizer.normalizer.normalize_str(content)
    return content.split() != [content]


def _pieces(tokenizer: Tokenizer, num_texts: int) -> list[_Piece]:
    """What a row consists of, as one tells of which each text has a single token."""
    row = tokenizer.encode(*["a"] * num_texts)
    tokens = zip(row.ids, row.sequence_ids, row.type_ids, strict=True)
    return [_Piece(token if text is None else None, text, type_id) for token, text, type_id in tokens]


def _words(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The words of all texts, each with the space or line end behind it, and the first word of each text and of none."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    start, end = int(offsets[0]), int(offsets[-1])
    if start == end:
        return pa.array([], pa.string()), np.zeros(len(offsets), dtype=np.int64)
    data = np.frombuffer(texts.buffers()[2], np.uint8)[start:end]
    is_last = (data == ord(" ")) | (data == ord("\n"))
    is_last[offsets[1:][np.diff(offsets) > 0] - start - 1] = True
    ends = np.flatnonzero(is_last).astype(np.int32) + np.int32(start + 1)
    bounds = pa.py_buffer(np.concatenate([offsets[:1], ends]))
    return pa.StringArray.from_buffers(len(ends), bounds, texts.buffers()[2]), np.searchsorted(ends, offsets, side="right")


def _kept_of_pairs(first: np.ndarray, second: np.ndarray, *, room: int) -> list[np.ndarray]:
    """How many tokens are kept of both texts: the shorter one is cut where it exceeds half of the room."""
    fits = first + second <= room
    shorter = np.minimum(np.minimum(first, second), room // 2)
    kept = (np.where(first <= second, *parts) for parts in ((shorter, room - shorter), (room - shorter, shorter)))
    return [np.where(fits, whole, part) for whole, part in zip((first, second), kept, strict=True)]


def _runs(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The indices of runs, one run after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
