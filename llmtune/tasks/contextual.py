"""Words put anew by a masked language model. Kobayashi 2018: https://arxiv.org/abs/1805.06201

With the name of the class before the text, so that the words fit it: Kumar et al. 2020, https://arxiv.org/abs/2003.02245

M: hidden words of a batch, V: entries of the vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from llmtune import console
from llmtune.config.sections.augment_model import Contextual
from llmtune.data import prepared
from llmtune.data.prepared import Split
from llmtune.errors import ModelError
from llmtune.models.heads import task_of
from llmtune.randomness import generator
from llmtune.tasks.vocabulary_loss import logits_at

LONGEST = 512  # tokens that the model reads of a row; words behind them stay
ROWS_AT_ONCE, TEXTS_AT_ONCE = 1_000, 64
STARTS = ("\u0120", "\u2581")  # of a word, where tokens say so: byte-level BPE, SentencePiece


class Rewriter:
    """Hides some words of a text and draws others from what the model expects there.

    Words are exchanged that are a single token, for others that are; the text around them stays as it is, to the character.

    Args:
        model: with a head for masked tokens, in eval mode, on its device.
        tokenizer: the model's.
        settings: how much is changed.
        autocast: within which the model is called.
        seed: of all draws.

    Raises:
        ModelError: the model cannot predict masked tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast | None,
        *,
        settings: Contextual,
        autocast: Callable[[], AbstractContextManager],
        seed: int,
    ):
        _require_masked_lm(model, tokenizer, settings.model)
        self.model, self.tokenizer, self.settings, self.autocast, self.seed = model, tokenizer, settings, autocast, seed
        self.longest = min(LONGEST, tokenizer.model_max_length)
        self.is_word_V = torch.from_numpy(_words(tokenizer, model.config.vocab_size))

    def rewrite(self, texts: Sequence[str], contexts: Sequence[str] | None, keys: Sequence[tuple[int, ...]]) -> list[str]:
        """Each text with some words put anew.

        Args:
            texts: to change.
            contexts: what the model reads before each text; None: nothing.
            keys: counters of each text's own draws.
        """
        if not texts:
            return []
        encoded = self.tokenizer(
            *([list(texts)] if contexts is None else [list(contexts), list(texts)]),
            truncation=True if contexts is None else "only_second",
            max_length=self.longest,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="np",
        )
        offsets, ids = encoded.pop("offset_mapping"), encoded["input_ids"].copy()
        rngs = [generator(self.seed, "contextual", *key) for key in keys]
        hidden = [self._hidden(encoded, i, rng) for i, rng in enumerate(rngs)]
        rows, places = np.repeat(np.arange(len(texts)), [len(h) for h in hidden]), np.concatenate(hidden)
        before_M = ids[rows, places]
        encoded["input_ids"][rows, places] = self.tokenizer.mask_token_id
        uniform_M = np.concatenate([rng.random(len(h)) for rng, h in zip(rngs, hidden, strict=True)])
        words = self._words_at(encoded, rows * ids.shape[1] + places, before_M, uniform_M)
        changed = list(texts)
        for row, place, word in reversed([*zip(rows.tolist(), places.tolist(), words, strict=True)]):  # later words first
            start, end = offsets[row, place].tolist()
            changed[row] = changed[row][:start] + word + changed[row][end:]
        return changed

    def _hidden(self, encoded: Any, row: int, rng: np.random.Generator) -> np.ndarray:
        """Where in a row words are put anew, in ascending order."""
        words, parts = encoded.word_ids(row), encoded.sequence_ids(row)  # of a context and a text, the text is the later part
        text = max(part for part in (*parts, 0) if part is not None)
        own = np.array([-1 if part != text else word for word, part in zip(words, parts, strict=True)])
        is_alone = (own >= 0) & (own != np.append(own[1:], -1)) & (own != np.append(-1, own[:-1]))
        candidates = np.flatnonzero(is_alone & self.is_word_V.numpy()[encoded["input_ids"][row]])
        number = min(len(candidates), max(1, round(self.settings.rate * len(np.unique(own[own >= 0])))))
        return np.sort(rng.choice(candidates, number, replace=False)) if number else candidates

    @torch.inference_mode()
    def _words_at(self, encoded: Any, at_M: np.ndarray, before_M: np.ndarray, uniform_M: np.ndarray) -> list[str]:
        """The word drawn for each hidden place of the flattened batch, which is not the one that stood there."""
        if not len(at_M):
            return []
        device = self.model.device
        inputs = {name: torch.from_numpy(values).to(device) for name, values in encoded.items()}
        with self.autocast():
            logits_MV = logits_at(self.model, inputs, torch.from_numpy(at_M).to(device)).float().cpu()
        logits_MV.masked_fill_(~self.is_word_V, float("-inf"))
        logits_MV[torch.arange(len(at_M)), torch.from_numpy(before_M)] = float("-inf")
        drawn_M = draw(logits_MV, torch.from_numpy(uniform_M), top_k=self.settings.top_k)
        return [word.strip() for word in self.tokenizer.batch_decode(drawn_M.unsqueeze(-1))]


def draw(logits_MV: Tensor, uniform_M: Tensor, *, top_k: int) -> Tensor:
    """One of the `top_k` likeliest entries for each place, by its probability among them and a number in [0, 1); int64 [M]."""
    top_MK, entries_MK = logits_MV.topk(min(top_k, logits_MV.shape[1]), -1)
    bounds_MK = top_MK.double().softmax(-1).cumsum(-1)
    places = torch.searchsorted(bounds_MK, (uniform_M * bounds_MK[:, -1]).unsqueeze(-1), right=True)
    return entries_MK.gather(-1, places.clamp(max=entries_MK.shape[1] - 1)).squeeze(-1)


def write_variants(directory: Path, split: Split, rewriter: Rewriter, *, label_names: Sequence[str] | None) -> dict[str, int]:
    """Write the variants of all rows of a split into an empty directory; returns how many there are and how many differ.

    Args:
        directory: for `train.arrow`.
        split: the train rows.
        rewriter: makes a variant of a text.
        label_names: of classes, by whose names a rewriter that wants contexts goes; None: there are no classes.
    """
    settings, columns = rewriter.settings, [name for name in ("text", "text_pair") if name in split.names]
    counts = {"variants": 0, "changed": 0}

    def chunks() -> Iterator[dict[str, list[str]]]:
        with console.progress("writing variants", total=len(split), unit="rows") as advance:
            for start in range(0, len(split), ROWS_AT_ONCE):
                ids = np.arange(start, min(start + ROWS_AT_ONCE, len(split)))
                rows = split.rows(ids)
                labels = [label_names[row["label"]] for row in rows] if label_names and settings.prepend_label else None
                made = {
                    name: _variants(rewriter, [row[name] for row in rows], labels, ids, column)
                    for column, name in enumerate(columns)
                }
                counts["variants"] += len(made["text"])
                counts["changed"] += sum(
                    any(made[name][i] != rows[i // settings.num_variants][name] for name in columns)
                    for i in range(len(made["text"]))
                )
                yield made
                advance(len(rows))

    prepared.write_split(directory, "train", chunks())
    return counts


def _variants(rewriter: Rewriter, texts: list[str], labels: list[str] | None, ids: np.ndarray, column: int) -> list[str]:
    """All variants of the first text, of the second, and so on; texts of like length go through the model together."""
    number = rewriter.settings.num_variants
    jobs = [(i, variant) for i in range(len(texts)) for variant in range(number)]
    order = sorted(range(len(jobs)), key=lambda job: len(texts[jobs[job][0]]))
    made = [""] * len(jobs)
    for start in range(0, len(order), TEXTS_AT_ONCE):
        part = order[start : start + TEXTS_AT_ONCE]
        rows = [jobs[job][0] for job in part]
        contexts = [labels[i] for i in rows] if labels is not None else None
        keys = [(int(ids[jobs[job][0]]), column, jobs[job][1]) for job in part]
        for job, text in zip(part, rewriter.rewrite([texts[i] for i in rows], contexts, keys), strict=True):
            made[job] = text
    return made


def _require_masked_lm(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, name: str) -> None:
    remedy = "name a masked language model, or the run of one: llmtune train +recipe=bert_mlm makes it"
    if task_of(model) != "masked_lm":
        kind = f"a {model.config.model_type} model without a head that predicts masked tokens"
        raise ModelError(f"augment.contextual.model: {name} is {kind}", where=name, remedy=remedy)
    if tokenizer is None or tokenizer.mask_token_id is None:
        raise ModelError(f"augment.contextual.model: {name} has no tokenizer with a mask token", where=name, remedy=remedy)


def _words(tokenizer: PreTrainedTokenizerFast, size: int) -> np.ndarray:
    """Which entries of the vocabulary are a whole word of letters, bool [size]."""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special = set(tokenizer.all_special_ids)
    start = next((mark for mark in STARTS if any(token.startswith(mark) for token in tokens)), "")
    found = [i for i, token in enumerate(tokens[:size]) if token.startswith(start) and i not in special]
    words = tokenizer.batch_decode([[i] for i in found]) if start else [tokens[i] for i in found]
    is_word = np.zeros(size, dtype=bool)
    is_word[[i for i, word in zip(found, words, strict=True) if word.strip().isalpha()]] = True
    return is_word
