"""Answer as the assistant of a conversation does: a causal model whose loss is on the answers alone."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw
from llmtune.tasks.chat import Chat, Written
from llmtune.tasks.language_modeling import LanguageModelTask, isolated
from llmtune.tasks.packing import best_fit, joined
from llmtune.tasks.text import TextInputs, example_ids, place
from llmtune.tasks.vocabulary_loss import IGNORED

TOO_LONG, NO_ANSWER = "too long", "no answer within max_length"


class InstructionTask(LanguageModelTask):
    """Conversations, one or several a row; the tokens of the answers and those that end them are predicted.

    Args:
        text: tokenizer and padding.
        answers: which turns of the assistant are learned: 'all' or the 'last'.
        system_prompt: first message of a conversation that has no system message; None: there is none.
        too_long: what becomes of a conversation beyond max_length: 'cut' behind it, or 'drop'.
        packing: whether train conversations may share a row.
        end_ids: tokens of which any ends an answer.

    Attributes:
        left_out: conversations that `encode` left out, by reason.
    """

    type = "instruction"
    described = ("answers", "system_prompt", "too_long", "packing", "end_ids")

    def __init__(
        self,
        text: TextInputs,
        *,
        answers: str,
        system_prompt: str | None,
        too_long: str,
        packing: bool,
        end_ids: Sequence[int],
    ):
        super().__init__(text)
        self.answers, self.system_prompt, self.too_long, self.packing = answers, system_prompt, too_long, packing
        self.end_ids = list(end_ids)
        self.left_out: Counter[str] = Counter()

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), **{name: getattr(self, name) for name in self.described}}

    @cached_property
    def chat(self) -> Chat:
        """Writes conversations as training did: `prompt_ids(messages)` is what a model reads before it answers."""
        return Chat(self.text.tokenizer, answers=self.answers, system_prompt=self.system_prompt)

    def encode(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """`input_ids`, and `answers`: where in it each answer that is learned begins and ends, in turns.

        Conversations of whose answers nothing is left within max_length are left out.
        """
        try:
            written = self.chat.write(columns["messages"].to_pylist())
        except DataError as e:
            raise DataError(e.message, where=place(columns, int(e.where)), remedy=e.remedy) from None
        kept = [row for row in map(self._fitting, written) if row is not None]
        rows = {"input_ids": [row.ids for row in kept], "answers": [row.answers for row in kept]}
        return {name: pa.array(values, pa.list_(pa.int32())) for name, values in rows.items()}

    def _fitting(self, row: Written) -> Written | None:
        """A conversation within max_length; None: it is left out."""
        limit = self.text.max_length
        if len(row.ids) <= limit:
            return row
        answers = np.minimum(row.answers, limit).reshape(-1, 2)
        answers = answers[answers[:, 0] < answers[:, 1]]
        if self.too_long == "drop" or not len(answers):
            self.left_out[TOO_LONG if self.too_long == "drop" else NO_ANSWER] += 1
            return None
        self.text.count_truncated(1)
        return Written(row.ids[:limit], answers.ravel().tolist())

    def pack(self, stored: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Encoded rows, several in one; `position_ids` holds each token's place in its own conversation."""
        lengths_N = pc.list_value_length(stored["input_ids"]).to_numpy()
        rows = list(zip(*(_arrays(stored[name]) for name in ("input_ids", "answers")), strict=True))
        packed = best_fit(lengths_N, capacity=self.text.max_length)
        columns = zip(*(joined([rows[i] for i in some]) for some in packed), strict=True) if packed else ((), (), ())
        names = ("input_ids", "answers", "position_ids")
        return {name: pa.array(values, pa.list_(pa.int32())) for name, values in zip(names, columns, strict=True)}

    def collate(self, examples: Sequence[dict], draw: Draw) -> Batch:
        inputs, _ = self.text.pad([{"input_ids": e["input_ids"][:-1]} for e in examples])
        lengths = inputs["attention_mask"].sum(-1)
        if "position_ids" in examples[0]:
            inputs = isolated(inputs, [e["position_ids"][:-1] for e in examples])
        labels_BL = np.full(inputs["input_ids"].shape, IGNORED, dtype=np.int64)
        for row, example in zip(labels_BL, examples, strict=True):
            for start, end in np.asarray(example["answers"]).reshape(-1, 2):
                row[max(start, 1) - 1 : end - 1] = example["input_ids"][max(start, 1) : end]
        num_targets = float((labels_BL != IGNORED).sum())
        return Batch(inputs, {"labels": torch.from_numpy(labels_BL)}, example_ids(examples), lengths, num_targets)


def _arrays(lists: pa.ListArray) -> list[np.ndarray]:
    """The items of each list."""
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    return [values[start:end] for start, end in zip(offsets[:-1], offsets[1:], strict=True)]
