"""Prefer the better of two answers to the same conversation. P: pairs, B = 2 P: the chosen answers, then the rejected ones."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from llmtune.data.forms import CONVERSATIONS
from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw, LossTerms, Scores
from llmtune.tasks.chat import Chat, Written
from llmtune.tasks.preference_losses import LOSSES, Answers, Settings
from llmtune.tasks.text import TextInputs, example_ids, place
from llmtune.tasks.vocabulary_loss import IGNORED, token_losses

TOO_LONG, NO_ANSWER, ALIKE = "too long", "no answer within max_length", "answers alike within max_length"
REFERENCE = ("reference_chosen", "reference_rejected")  # what stands beside the stored rows for losses that need it
OF_LOSS = ("loss", "beta", "label_smoothing", "margin")  # what of `describe` decides nothing about stored rows


class PreferenceTask:
    """Conversations with two last answers; the model is to find the chosen one likelier than before, or than the other.

    Args:
        text: tokenizer and padding.
        loss: a key of `LOSSES`.
        settings: its numbers.
        system_prompt: first message of a conversation that has no system message; None: there is none.
        too_long: what becomes of pairs beyond max_length: 'cut_prompt', 'cut_answer' or 'drop'.
        end_ids: tokens of which any ends an answer.

    Attributes:
        left_out: pairs that `encode` left out, by reason.
    """

    type = "preference"
    described = ("loss", "system_prompt", "too_long", "end_ids")

    def __init__(
        self,
        text: TextInputs,
        *,
        loss: str,
        settings: Settings,
        system_prompt: str | None,
        too_long: str,
        end_ids: Sequence[int],
    ):
        self.text, self.loss_type, self.settings = text, loss, settings
        self.system_prompt, self.too_long, self.end_ids = system_prompt, too_long, list(end_ids)
        self.left_out: Counter[str] = Counter()

    def describe(self) -> dict[str, Any]:
        own = {"system_prompt": self.system_prompt, "too_long": self.too_long, "end_ids": self.end_ids}
        return {"type": self.type, **self.text.describe(), "loss": self.loss_type, **asdict(self.settings), **own}

    @property
    def needs_reference(self) -> bool:
        return LOSSES[self.loss_type].needs_reference

    @cached_property
    def chat(self) -> Chat:
        """Writes conversations as training did: `prompt_ids(messages)` is what a model reads before it answers."""
        return Chat(self.text.tokenizer, answers="last", system_prompt=self.system_prompt)

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """`input_ids`: both conversations, one behind the other; `pair`: where in it each of the answers begins and ends.

        Pairs of whose answers nothing is left within max_length, or no difference, are left out.
        """
        try:
            chosen, rejected = (self.chat.write(columns[name].to_pylist()) for name in CONVERSATIONS)
        except DataError as e:
            raise DataError(e.message, where=place(columns, int(e.where)), remedy=e.remedy) from None
        kept = [pair for pair in map(self._fitting, chosen, rejected) if pair is not None]
        rows = {
            "input_ids": [[*chosen.ids, *rejected.ids] for chosen, rejected in kept],
            "pair": [[*chosen.answers, *(len(chosen.ids) + at for at in rejected.answers)] for chosen, rejected in kept],
        }
        return {name: pa.array(values, pa.list_(pa.int32())) for name, values in rows.items()}

    def _fitting(self, chosen: Written, rejected: Written) -> tuple[Written, Written] | None:
        """A pair within max_length; None: it is left out."""
        over = max(len(chosen.ids), len(rejected.ids)) - self.text.max_length
        pair, reason = (chosen, rejected), None
        if over > 0 and self.too_long == "drop":
            reason = TOO_LONG
        elif over > 0:
            before = min(chosen.answers[0], rejected.answers[0]) - 1  # the first token of an answer needs one before it
            num_cut = max(0, min(over, before)) if self.too_long == "cut_prompt" else 0
            pair = tuple(_cut(one, num_cut, self.text.max_length) for one in pair)
            reason = NO_ANSWER if any(one.answers[0] >= one.answers[1] for one in pair) else None
        if reason is None and pair[0].ids == pair[1].ids:
            reason = ALIKE
        if reason is not None:
            self.left_out[reason] += 1
            return None
        self.text.count_truncated(int(over > 0))
        return pair

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        pairs = [_parted(np.asarray(e["input_ids"]), np.asarray(e["pair"])) for e in examples]
        rows = [pair[side] for side in (0, 1) for pair in pairs]
        inputs, lengths_B = self.text.pad([{"input_ids": ids[:-1]} for ids, _ in rows])
        labels_BL = np.full(inputs["input_ids"].shape, IGNORED, dtype=np.int64)
        for labels, (ids, first) in zip(labels_BL, rows, strict=True):
            labels[first - 1 : len(ids) - 1] = ids[first:]
        targets = {"labels": torch.from_numpy(labels_BL)}
        if REFERENCE[0] in examples[0]:
            targets |= {name: torch.tensor([e[name] for e in examples], dtype=torch.float32) for name in REFERENCE}
        lengths_P = lengths_B.view(2, -1).sum(0)
        return Batch(inputs, targets, example_ids(examples), lengths_P, float(len(examples)))

    def loss(self, model: nn.Module, batch: Batch) -> LossTerms:
        chosen, rejected = self.answers(model, batch)
        losses_P = LOSSES[self.loss_type].of(chosen, rejected, self.settings)
        with torch.no_grad():
            chosen_P, rejected_P = self._reward(chosen), self._reward(rejected)
            parts = {"accuracy": (chosen_P > rejected_P).sum(), "margin": (chosen_P - rejected_P).sum()}
        return LossTerms(losses_P.sum(), parts)

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        chosen, rejected = self.answers(model, batch)
        losses_P = _numbers(LOSSES[self.loss_type].of(chosen, rejected, self.settings))
        outputs = {"chosen_reward": self._reward(chosen), "rejected_reward": self._reward(rejected)}
        outputs |= {"chosen_log_prob": chosen.log_prob, "rejected_log_prob": rejected.log_prob}
        outputs = {name: _numbers(values) for name, values in outputs.items()}
        right_P = outputs["chosen_reward"] > outputs["rejected_reward"]
        sums = {"right": right_P.sum(), **{name: values.sum() for name, values in outputs.items()}}
        return Scores(batch.example_ids.numpy(), losses_P, np.ones_like(losses_P), outputs, sums)

    def answers(self, model: nn.Module, batch: Batch) -> tuple[Answers, Answers]:
        """What the model says of the chosen and of the rejected answers."""
        labels_BL = batch.targets["labels"]
        losses_T, rows_T = token_losses(model, batch.inputs, labels_BL)
        log_probs_B = losses_T.new_zeros(len(labels_BL)).index_add(0, rows_T, -losses_T)
        lengths_B = (labels_BL != IGNORED).sum(1).float()
        references = [batch.targets.get(name) for name in REFERENCE]
        return tuple(map(Answers, log_probs_B.chunk(2), references, lengths_B.chunk(2)))

    def texts_of(self, row: dict[str, Any]) -> dict[str, str]:
        """The prompt and both answers of a stored row, as the model reads them."""
        (ids, first), (other_ids, other) = _parted(np.asarray(row["input_ids"]), np.asarray(row["pair"]))
        parts = {"prompt": ids[:first], "chosen": ids[first:], "rejected": other_ids[other:]}
        return {name: self.text.tokenizer.decode(part.tolist()) for name, part in parts.items()}

    def _reward(self, answers: Answers) -> Tensor:
        return self.settings.beta * LOSSES[self.loss_type].gain(answers)


class ReferenceTask:
    """What the model that training starts from says of the answers, in the place of a task that is scored.

    Args:
        task: whose rows they are.
    """

    type = "preference"

    def __init__(self, task: PreferenceTask):
        self.task, self.collate = task, task.collate

    def score(self, model: nn.Module, batch: Batch) -> Scores:
        outputs = {name: _numbers(one.log_prob) for name, one in zip(REFERENCE, self.task.answers(model, batch), strict=True)}
        nothing = np.zeros(len(batch.example_ids))
        return Scores(batch.example_ids.numpy(), nothing, nothing, outputs)


def _cut(one: Written, num_cut: int, limit: int) -> Written:
    """A conversation without its first tokens, and without what is beyond the limit then."""
    return Written(one.ids[num_cut : num_cut + limit], [min(at - num_cut, limit) for at in one.answers])


def _parted(ids: np.ndarray, pair: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Both conversations of a stored row, and the first token of the answer in each."""
    first, behind, other, _ = pair.tolist()
    return [(ids[:behind], max(first, 1)), (ids[behind:], max(other - behind, 1))]


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
