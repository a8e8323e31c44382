"""Predict the next token (causal) or hidden tokens (masked). V: entries of the vocabulary."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmtune.errors import ModelError
from llmtune.randomness import generator
from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.text import TextInputs, example_ids, filled
from llmtune.tasks.vocabulary_loss import IGNORED, logits_at, summed_loss


def token_losses(logits_BLV: Tensor, labels_BL: Tensor) -> Tensor:
    """Cross-entropy of each position, 0 where nothing is predicted; float32 [B, L]."""
    flat = F.cross_entropy(logits_BLV.float().flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORED, reduction="none")
    return flat.view_as(labels_BL)


class LanguageModelTask:
    """What both kinds share: the loss is summed over predicted tokens and weighted by their number."""

    type: str

    def __init__(self, text: TextInputs):
        self.text = text

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        return LossTerms(summed_loss(model, batch.inputs, batch.targets["labels"]))

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        labels_BL = batch.targets["labels"]
        rows_T, places_T = (labels_BL != IGNORED).nonzero(as_tuple=True)
        labels_T = labels_BL[rows_T, places_T]
        logits_TV = logits_at(model, batch.inputs, rows_T * labels_BL.shape[1] + places_T)
        losses_T = F.cross_entropy(logits_TV.float(), labels_T, reduction="none").double()

        def in_rows(values_T: Tensor) -> np.ndarray:
            return np.bincount(rows_T.cpu().numpy(), values_T.cpu().numpy(), minlength=len(labels_BL))

        outputs = {"num_correct": in_rows(logits_TV.argmax(-1) == labels_T).astype(np.int64)}
        return Scores(batch.example_ids.numpy(), in_rows(losses_T), in_rows(torch.ones_like(losses_T)), outputs)

    def describe(self) -> dict[str, Any]:
        return {"type": self.type, **self.text.describe()}


class CausalLmTask(LanguageModelTask):
    """Rows are joined into one stream and cut into blocks; each token but the first is predicted exactly once.

    Args:
        text: tokenizer and padding.
        end_of_text: token put behind each row; None for plain text, whose lines carry their own line ends.
        isolate_documents: whether each row is read as if it stood alone: attention does not reach into the row before,
            positions begin anew, and the first token of a row is not predicted.
    """

    type = "causal_lm"

    def __init__(self, text: TextInputs, *, end_of_text: int | None, isolate_documents: bool = False):
        super().__init__(text)
        self.end_of_text, self.isolate_documents = end_of_text, isolate_documents

    def describe(self) -> dict[str, Any]:
        apart = {"isolate_documents": True} if self.isolate_documents else {}
        return {**super().describe(), "end_of_text": self.end_of_text, **apart}

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Each row as one block of its own, cut to max_length."""
        rows = self._token_ids(columns["text"])
        return {"input_ids": pa.array([ids[: self.text.max_length + 1] for ids in rows], pa.list_(pa.int32()))}

    def encode_stream(self, chunks: Iterable[dict[str, pa.Array]]) -> Iterator[dict[str, pa.Array]]:
        """Blocks of max_length + 1 tokens; neighbours share one token, the last target of one and first input of the next.

        Where documents are isolated, `position_ids` holds each token's place in its row, or in the part that begins the block.
        """
        stride = self.text.max_length
        rest_2T = np.empty((2, 0), dtype=np.int32)  # tokens, and their places in their rows
        for columns in chunks:
            rows = self._token_ids(columns["text"])
            ids = np.array([token for row in rows for token in row], dtype=np.int32)
            places = np.concatenate([np.arange(len(row), dtype=np.int32) for row in rows]) if rows else ids
            stream_2T = np.concatenate([rest_2T, np.stack([ids, places])], axis=1)
            num_blocks = max(0, (stream_2T.shape[1] - 1) // stride)
            if num_blocks:
                yield self._stored([stream_2T[:, i * stride : (i + 1) * stride + 1] for i in range(num_blocks)])
            rest_2T = stream_2T[:, num_blocks * stride :]
        if rest_2T.shape[1] > 1:
            yield self._stored([rest_2T])

    def _stored(self, blocks: list[np.ndarray]) -> dict[str, pa.Array]:
        stored = {"input_ids": [ids for ids, _ in blocks]}
        if self.isolate_documents:
            stored["position_ids"] = [_from_zero(places) for _, places in blocks]
        return {name: pa.array(rows, pa.list_(pa.int32())) for name, rows in stored.items()}

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, _ = self.text.pad([{"input_ids": e["input_ids"][:-1]} for e in examples])
        lengths = inputs["attention_mask"].sum(-1)
        labels_BL = np.full(inputs["input_ids"].shape, IGNORED, dtype=np.int64)
        for row, example in zip(labels_BL, examples, strict=True):
            row[: len(example["input_ids"]) - 1] = example["input_ids"][1:]
        if "position_ids" in examples[0]:
            inputs = isolated(inputs, [e["position_ids"][:-1] for e in examples])
            for labels, example in zip(labels_BL, examples, strict=True):
                labels[: len(example["input_ids"]) - 1][example["position_ids"][1:] == 0] = IGNORED
        num_targets = float((labels_BL != IGNORED).sum())
        return Batch(inputs, {"labels": torch.from_numpy(labels_BL)}, example_ids(examples), lengths, num_targets)

    def _token_ids(self, texts: pa.Array) -> list[list[int]]:
        encoded = self.text.tokenizer(
            filled(texts).to_pylist(), add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        tail = [] if self.end_of_text is None else [self.end_of_text]
        return [ids + tail for ids in encoded["input_ids"]]


def isolated(inputs: dict[str, Tensor], places: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """Padded rows of several texts each, that a model is to read as if each text stood alone.

    transformers tells the texts apart by positions that do not go on; a padding token is a text of its own.

    Args:
        inputs: `input_ids` and `attention_mask` [B, L].
        places: of the tokens of each row, in the text that they belong to.
    """
    positions_BL = np.zeros(inputs["input_ids"].shape, dtype=np.int64)
    for positions, own in zip(positions_BL, places, strict=True):
        positions[: len(own)] = own
    kept = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
    return {**kept, "position_ids": torch.from_numpy(positions_BL)}


def require_isolation(model: nn.Module, *, key: str) -> None:
    """Make sure that a model tells the texts of a row apart by their positions.

    Args:
        model: about to be trained.
        key: of the config, that asks for it.

    Raises:
        ModelError: what it says of a row depends on the row before.
    """
    device = next(model.parameters()).device
    positions = torch.tensor([[0, 1, 0, 1]], device=device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        one, other = (
            model(input_ids=torch.tensor([[*row, 3, 2]], device=device), position_ids=positions, use_cache=False).logits[0, 2:]
            for row in ((0, 1), (2, 3))
        )
    model.train(was_training)
    if not torch.allclose(one.float(), other.float(), atol=1e-4):
        raise ModelError(
            f"{key}: models of this kind do not tell the texts of a row apart",
            remedy=f"{key}=false, or another model, such as one of the llama, qwen2 or gpt2 kind",
        )


def _from_zero(places: np.ndarray) -> np.ndarray:
    """Places of a block's tokens in their rows, with the part of a row that begins the block counted from 0."""
    first_row = len(places) if not (places[1:] == 0).any() else int(np.argmax(places[1:] == 0)) + 1
    counted = places.copy()
    counted[:first_row] -= places[0]
    return counted


class MaskedLmTask(LanguageModelTask):
    """Of the tokens drawn 80 % are masked, 10 % replaced by any token, 10 % kept. Devlin et al. 2019.

    Args:
        text: tokenizer and padding.
        mask_probability: share of the tokens that are predicted; at least one of each row.
        mask_token_id: stands for a masked token.
        special_ids: tokens that are never predicted.
        vocab_size: replacements are drawn from below this id.
    """

    type = "masked_lm"

    def __init__(
        self, text: TextInputs, *, mask_probability: float, mask_token_id: int, special_ids: Sequence[int], vocab_size: int
    ):
        super().__init__(text)
        self.mask_probability, self.mask_token_id = mask_probability, mask_token_id
        self.special_ids, self.vocab_size = tuple(special_ids), vocab_size

    def describe(self) -> dict[str, Any]:
        own = ("mask_probability", "mask_token_id", "special_ids", "vocab_size")
        return {**super().describe(), **{k: getattr(self, k) for k in own}, "special_ids": list(self.special_ids)}

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Rows without a token to predict, such as blank lines, are left out."""
        texts = filled(columns["text"])
        stored = {**self.text.encode_columns(texts), "text": texts}
        ids = stored["input_ids"]
        is_special = np.isin(ids.flatten().to_numpy(), self.special_ids)
        row_of_token = pc.list_parent_indices(ids).to_numpy()
        num_predictable = np.bincount(row_of_token, weights=~is_special, minlength=len(ids))
        kept = pa.array(num_predictable > 0)
        return {name: values.filter(kept) for name, values in stored.items()}

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, lengths = self.text.pad(self.text.augment(examples, draw))
        ids_BL = inputs["input_ids"].numpy()
        labels_BL = np.full(ids_BL.shape, IGNORED, dtype=np.int64)
        for i, example in enumerate(examples):
            self._mask(ids_BL[i, : lengths[i]], labels_BL[i], draw, example["id"])
        num_targets = float((labels_BL != IGNORED).sum())
        return Batch(inputs, {"labels": torch.from_numpy(labels_BL)}, example_ids(examples), lengths, num_targets)

    def _mask(self, ids_L: np.ndarray, labels_L: np.ndarray, draw: Draw, example: int) -> None:
        """Change one row of ids in place and note the targets."""
        rng = generator(draw.seed, "mask" if draw.training else "evaluation mask", draw.epoch if draw.training else 0, example)
        candidates = np.flatnonzero(~np.isin(ids_L, self.special_ids))
        if not len(candidates):
            return
        chosen = candidates[rng.random(len(candidates)) < self.mask_probability]
        if not len(chosen):
            chosen = rng.choice(candidates, size=1)
        labels_L[chosen] = ids_L[chosen]
        fate = rng.random(len(chosen))
        ids_L[chosen[fate < 0.8]] = self.mask_token_id
        replaced = chosen[(fate >= 0.8) & (fate < 0.9)]
        ids_L[replaced] = rng.integers(0, self.vocab_size, size=len(replaced))
