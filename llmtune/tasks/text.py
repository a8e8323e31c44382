"""What the text tasks share: tokenizing rows and padding token ids into tensors."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

from llmtune.data import tokenizer as tokenizers
from llmtune.data.augment.tokens import TokenAugmenter
from llmtune.data.augment.variants import Variants
from llmtune.data.sources import place
from llmtune.data.words import WordEncoder, word_encoder
from llmtune.errors import DataError
from llmtune.randomness import generator
from llmtune.tasks.base import Draw

Augmenter = Callable[[Mapping[str, str], np.random.Generator], dict[str, str]]  # text, and text_pair if there is one

_MANY = 100  # rows, from which on it is worth while to look for words that come up again
_PART = 1 << 22  # bytes of text that are tokenized at once, if it is more than a row
_LARGEST = float(np.finfo(np.float32).max)


class TextInputs:
    """Tokenizes texts and pairs of texts, and pads stored rows.

    Args:
        tokenizer_dir: where the tokenizer lies; it is read only when a text has to be tokenized.
        max_length: tokens of an example, special tokens included.
        pad_token_id: fills up the shorter rows.
        token_types: whether the model tells the two texts of a pair apart by `token_type_ids`.
        has_pairs: whether a row is a pair of texts.

    Attributes:
        variants, augmenter, token_augmenter: what changes rows in training, one after the other.
    """

    def __init__(self, tokenizer_dir: Path | None, *, max_length: int, pad_token_id: int, token_types: bool, has_pairs: bool):
        self.tokenizer_dir, self.max_length = tokenizer_dir, max_length
        self.pad_token_id, self.token_types, self.has_pairs = pad_token_id, token_types, has_pairs
        self.variants: Variants | None = None
        self.augmenter: Augmenter | None = None
        self.token_augmenter: TokenAugmenter | None = None
        self._num_truncated = 0

    def describe(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("max_length", "pad_token_id", "token_types", "has_pairs")}

    @cached_property
    def tokenizer(self):
        return tokenizers.load(self.tokenizer_dir)

    @cached_property
    def _backend(self) -> Any:
        """The tokenizer beneath transformers' own, set to cut at max_length."""
        strategies = PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST
        self.tokenizer.set_truncation_and_padding(
            *strategies, max_length=self.max_length, stride=0, pad_to_multiple_of=None, padding_side=None
        )
        return self.tokenizer.backend_tokenizer

    @cached_property
    def _word_encoder(self) -> WordEncoder | None:
        return word_encoder(self._backend, num_texts=2 if self.has_pairs else 1)

    @property
    def num_truncated(self) -> int:
        """How many of the rows that were tokenized so far did not fit and were cut at max_length."""
        by_word = self.__dict__.get("_word_encoder")  # made when it is first used
        return self._num_truncated + (by_word.num_truncated if by_word is not None else 0)

    def count_truncated(self, num_rows: int) -> None:
        """Rows that the task has cut by itself."""
        self._num_truncated += num_rows

    def encode_columns(self, texts: pa.Array, pairs: pa.Array | None = None) -> dict[str, pa.Array]:
        """What `encode` gives, for many rows: lists of int32. Texts are strings, none of them null."""
        columns = [texts] if pairs is None else [texts, pairs]
        parts = [self._encode_part([column.slice(start, size) for column in columns]) for start, size in _parts(columns)]
        return {name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]}

    def _encode_part(self, columns: list[pa.Array]) -> dict[str, pa.Array]:
        by_word = None
        if len(columns[0]) >= _MANY and self._word_encoder is not None:
            by_word = self._word_encoder.encode(*columns)
        if by_word is None:
            encoded = self.encode(*(column.to_pylist() for column in columns))
            return {name: pa.array(rows, pa.list_(pa.int32())) for name, rows in encoded.items()}
        ids, types = by_word
        ids = pc.if_else(pc.equal(pc.list_value_length(ids), 0), pa.scalar([self.pad_token_id], ids.type), ids)
        return {"input_ids": ids, "token_type_ids": types} if self.token_types and len(columns) > 1 else {"input_ids": ids}

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, list]:
        """Token ids of each row, cut to max_length; in threads of the tokenizer's, without places in the text."""
        encoded = self._backend.encode_batch_fast(list(texts) if pairs is None else list(zip(texts, pairs, strict=True)))
        self._num_truncated += sum(len(row.ids) == self.max_length and bool(row.overflowing) for row in encoded)
        # A row without a single token (an empty text under a tokenizer without special tokens) still needs a position.
        columns = {"input_ids": [row.ids or [self.pad_token_id] for row in encoded]}
        if self.token_types and pairs is not None:
            columns["token_type_ids"] = [row.type_ids for row in encoded]
        return columns

    def encode_with_offsets(self, texts: Sequence[str]) -> tuple[list[list[int]], list[np.ndarray]]:
        """Token ids of each text, cut to max_length, and where each token begins and ends in it, int64 [L, 2]."""
        encoded = self._backend.encode_batch(list(texts))
        self._num_truncated += sum(len(row.ids) == self.max_length and bool(row.overflowing) for row in encoded)
        offsets = [np.array(row.offsets, dtype=np.int64).reshape(-1, 2) for row in encoded]
        return [row.ids or [self.pad_token_id] for row in encoded], offsets

    def augment(self, examples: Sequence[dict], draw: Draw) -> Sequence[dict]:
        """The examples changed at random: a variant, its text, its tokens; draws depend on epoch, row and repeat alone."""
        if not draw.training:
            return examples
        if self.variants is not None:
            examples = [self.variants.drawn(example, draw.seed, draw.epoch) for example in examples]
        if self.variants is not None or self.augmenter is not None:
            examples = self._augment_texts(examples, draw)
        if self.token_augmenter is not None:
            examples = [self._augment_tokens(example, draw) for example in examples]
        return examples

    def _augment_texts(self, examples: Sequence[dict], draw: Draw) -> list[dict]:
        """The examples with texts changed and tokenized again."""
        changed = [self.augmented_texts(example, draw) for example in examples]
        pairs = [texts["text_pair"] for texts in changed] if "text_pair" in changed[0] else None
        encoded = self.encode([texts["text"] for texts in changed], pairs)  # at once: a call for each row takes longer
        rows = ({name: np.asarray(values[i]) for name, values in encoded.items()} for i in range(len(changed)))
        return [{**example, **texts, **row} for example, texts, row in zip(examples, changed, rows, strict=True)]

    def augmented_texts(self, example: dict, draw: Draw) -> dict[str, str]:
        """The texts of one row, or of its variant, as an epoch sees them."""
        texts = {k: example[k] for k in ("text", "text_pair") if k in example}
        if self.augmenter is None:
            return texts
        return self.augmenter(texts, generator(draw.seed, "augment", draw.epoch, example["id"], example.get("repeat", 0)))

    def _augment_tokens(self, example: dict, draw: Draw) -> dict:
        rng = generator(draw.seed, "augment tokens", draw.epoch, example["id"], example.get("repeat", 0))
        columns = {name: np.asarray(example[name]) for name in ("input_ids", "token_type_ids") if name in example}
        return {**example, **self.token_augmenter(columns, rng)}

    def pad(self, examples: Sequence[dict]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Model inputs [B, L] and lengths [B], padded on the right."""
        lengths = np.array([len(e["input_ids"]) for e in examples], dtype=np.int64)
        shape = (len(examples), int(lengths.max()))
        ids = np.full(shape, self.pad_token_id, dtype=np.int64)
        for row, example in zip(ids, examples, strict=True):
            row[: len(example["input_ids"])] = example["input_ids"]
        mask = (np.arange(shape[1])[None, :] < lengths[:, None]).astype(np.int64)
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if "token_type_ids" in examples[0]:
            types = np.zeros(shape, dtype=np.int64)
            for row, example in zip(types, examples, strict=True):
                row[: len(example["token_type_ids"])] = example["token_type_ids"]
            inputs["token_type_ids"] = torch.from_numpy(types)
        return inputs, torch.from_numpy(lengths)


def example_ids(examples: Sequence[dict]) -> torch.Tensor:
    return torch.tensor([e["id"] for e in examples], dtype=torch.int64)


def filled(texts: pa.Array) -> pa.Array:
    """Missing texts as empty ones."""
    return pc.fill_null(texts, "")


def _parts(columns: Sequence[pa.Array]) -> list[tuple[int, int]]:
    """First row and number of rows of parts that hold about `_PART` bytes, or a longer row."""
    sizes = sum(pc.binary_length(column).to_numpy() for column in columns)
    starts = np.flatnonzero(np.diff(np.cumsum(sizes) // _PART, prepend=-1))
    return list(zip(starts.tolist(), np.diff(starts, append=len(sizes)).tolist(), strict=True))


def as_numbers(columns: Mapping[str, pa.Array | pa.ChunkedArray], name: str) -> list[float]:
    """A column of text as numbers that are finite in float32, too.

    Raises:
        DataError: names the first row that holds none.
    """
    numbers = []
    for i, text in enumerate(columns[name].to_pylist()):
        try:
            number = float(text)
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) <= _LARGEST:
            raise DataError(
                f"the {name} is {text!r}, not a finite number" if text not in (None, "") else f"the {name} is empty",
                where=place(columns, i),
                remedy="correct or remove the row; task=classification predicts names",
            )
        numbers.append(number)
    return numbers
