"""One tag for each word of a text. B: texts of a batch, L: tokens, W: words, C: tags.

The first token of a word carries its tag, the others none. A word beyond max_length has no token: no tag is predicted for it,
and it counts as one that was tagged O.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from llmtune import console
from llmtune.data.readers.lists import regrouped
from llmtune.data.tokenizer import WORD
from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.language_modeling import token_losses
from llmtune.tasks.tags import Scheme, as_bio
from llmtune.tasks.text import TextInputs, example_ids, filled, place
from llmtune.tasks.vocabulary_loss import IGNORED

_WORD = re.compile(WORD)
_LISTS = pa.list_(pa.int32())


class TaggingTask:
    """Softmax over the tags for each word.

    Args:
        text: tokenizer and padding.
        label_names: tags in the order of their ids.
    """

    type = "tagging"

    def __init__(self, text: TextInputs, *, label_names: Sequence[str]):
        self.text, self.label_names = text, tuple(label_names)
        self.scheme = Scheme(label_names)
        self._num_words = self._num_unread = self._num_repaired = 0

    def describe(self) -> dict[str, Any]:
        return {"type": self.type, "label_names": list(self.label_names), **self.text.describe()}

    def encode(self, columns: dict[str, pa.Array], *, keeps_all: bool = False) -> dict[str, pa.Array]:
        """Rows without a single word that has a token are left out, unless `keeps_all`.

        `spans` tells where each word begins and ends in the text; without it, words and punctuation marks are looked for.
        `positions` is stored: the token of each word, -1 for one that has none.
        """
        texts = filled(columns["text"])
        spans = columns["spans"] if "spans" in columns else pa.array([word_spans(text) for text in texts.to_pylist()], _LISTS)
        ids, offsets = self.text.encode_with_offsets(texts.to_pylist())
        rows = zip(spans.to_pylist(), offsets, strict=True)
        positions = [first_tokens(np.array(row, dtype=np.int64).reshape(-1, 2), tokens) for row, tokens in rows]
        stored = {"input_ids": pa.array(ids, _LISTS), "text": texts, "spans": spans, "positions": pa.array(positions, _LISTS)}
        if "tags" in columns:
            stored["tags"] = self._ids(columns)
        self._num_words += sum(map(len, positions))
        self._num_unread += sum(int((row < 0).sum()) for row in positions)
        kept = pa.array([keeps_all or bool((row >= 0).any()) for row in positions])
        return {name: values.filter(kept) for name, values in stored.items()}

    def tell(self) -> None:
        """A notice of what was found since the last one: words that no tag is predicted for, and tags that were repaired."""
        if self._num_unread:
            console.notice(
                f"{self._num_unread:,} of {self._num_words:,} words have no token, as they lie beyond "
                f"max_length={self.text.max_length} or hold nothing that the tokenizer knows: they count as tagged O"
            )
        if self._num_repaired:
            console.notice(f"{self._num_repaired:,} tags I- follow no word of their type: they are read as B-, as scoring does")
        self._num_words = self._num_unread = self._num_repaired = 0

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, lengths = self.text.pad(examples)
        positions_BW = _padded([e["positions"] for e in examples], -1)
        targets = {"positions": torch.from_numpy(positions_BW)}
        if "tags" in examples[0]:
            tags_BW = _padded([e["tags"] for e in examples], IGNORED)
            labels_BL = np.full(inputs["input_ids"].shape, IGNORED, dtype=np.int64)
            has_token = positions_BW >= 0
            labels_BL[np.nonzero(has_token)[0], positions_BW[has_token]] = tags_BW[has_token]
            targets |= {"labels": torch.from_numpy(labels_BL), "tags": torch.from_numpy(tags_BW)}
        return Batch(inputs, targets, example_ids(examples), lengths, float((positions_BW >= 0).sum()))

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        return LossTerms(token_losses(model(**batch.inputs).logits, batch.targets["labels"]).sum())

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        """`prediction` is of each token, int32 [B, L], 0 for those that begin no word: `tags_of` reads those of the words."""
        logits_BLC = model(**batch.inputs).logits.float()
        best_BL = logits_BLC.argmax(-1).cpu().numpy()
        positions_BW = batch.targets["positions"].cpu().numpy()
        at = np.nonzero(positions_BW >= 0)[0], positions_BW[positions_BW >= 0]
        predicted_BL = np.zeros(best_BL.shape, dtype=np.int32)
        predicted_BL[at] = best_BL[at]
        outputs = {"prediction": predicted_BL}
        weights, losses, sums = (positions_BW >= 0).sum(1).astype(np.float64), np.zeros(len(positions_BW)), {}
        if "labels" in batch.targets:
            losses = token_losses(logits_BLC, batch.targets["labels"]).double().sum(-1).cpu().numpy()
            sums = self._sums(predicted_BL, positions_BW, batch.targets["tags"].cpu().numpy())
        return Scores(batch.example_ids.numpy(), losses, weights, outputs, sums)

    def tags_of(self, predicted_L: np.ndarray, positions_W: np.ndarray) -> np.ndarray:
        """The predicted tag of each word, as an id; that of O, or -1 if there is none, for a word without a token."""
        positions_W = np.asarray(positions_W)
        return np.where(positions_W >= 0, predicted_L[positions_W], self.scheme.outside)

    def _sums(self, predicted_BL: np.ndarray, positions_BW: np.ndarray, tags_BW: np.ndarray) -> dict[str, np.ndarray]:
        """What the metrics follow from: `counts` [T, 3] of right, predicted and real entities, and right and all words."""
        at_BW = np.maximum(positions_BW, 0)
        tagged_BW = np.where(positions_BW >= 0, np.take_along_axis(predicted_BL, at_BW, 1), self.scheme.outside)
        is_word = tags_BW != IGNORED
        border = ((0, 0), (0, 1))  # ends the entities of a row
        both = [np.pad(np.where(is_word, ids_BW, -1), border, constant_values=-1).ravel() for ids_BW in (tagged_BW, tags_BW)]
        words = np.array([(is_word & (tagged_BW == tags_BW)).sum(), is_word.sum()])
        return {"counts": self.scheme.counts(*both), "words": words}

    def _ids(self, columns: dict[str, pa.Array]) -> pa.Array:
        tags, num_repaired = as_bio(columns["tags"])
        self._num_repaired += num_repaired
        items = tags.flatten()
        ids = pc.index_in(items, value_set=pa.array(self.label_names, pa.string()))
        if ids.null_count:
            at = pc.index(ids.is_null(), True).as_py()
            known = ", ".join(self.label_names[:10]) + (", ..." if len(self.label_names) > 10 else "")
            raise DataError(
                f"the tag {items[at].as_py()[:80]!r} does not occur in the train rows",
                where=place(columns, tags.value_parent_indices()[at].as_py()),
                remedy=f"the tags are: {known}; correct the row, or set task.label_names",
            )
        return regrouped(tags, ids.cast(pa.int32()))


def word_spans(text: str) -> list[int]:
    """Begin and end of each word and each punctuation mark, in turns."""
    return [place for found in _WORD.finditer(text) for place in found.span()]


def first_tokens(spans_W2: np.ndarray, offsets_L2: np.ndarray) -> np.ndarray:
    """The first token of each word, int32 [W]; -1 for a word without.

    A token is of the word that its last character is in: some tokenizers put the space before a word into its token.

    Args:
        spans_W2: begin and end of each word, in characters, in order.
        offsets_L2: begin and end of each token; nothing of a special one.
    """
    positions = np.full(len(spans_W2), -1, dtype=np.int32)
    if not len(spans_W2):
        return positions
    last_L = offsets_L2[:, 1] - 1
    words_L = np.maximum(np.searchsorted(spans_W2[:, 0], last_L, side="right") - 1, 0)
    is_in_word = (offsets_L2[:, 1] > offsets_L2[:, 0]) & (last_L >= spans_W2[words_L, 0]) & (last_L < spans_W2[words_L, 1])
    tokens = np.flatnonzero(is_in_word)[::-1]
    positions[words_L[tokens]] = tokens  # of several tokens of a word, the first is written last
    return positions


def _padded(rows: Sequence[np.ndarray], value: int) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for to, row in zip(padded, rows, strict=True):
        to[: len(row)] = row
    return padded
