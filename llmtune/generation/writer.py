"""Lets a model write: many prompts in batches, or one that somebody reads along.

B: rows.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmtune.config.sections.generation import Sampling
from llmtune.failures import is_out_of_memory
from llmtune.generation.context import Context
from llmtune.generation.prompts import Prompts
from llmtune.generation.row import Answer, Row
from llmtune.generation.sampling import draw, penalized
from llmtune.training import memory


class Writer:
    """A causal model that continues prompts.

    The text of a row depends on the model, its prompt, the sampling keys and its own key, never on the rows beside it, but
    for the rounding of sums (see docs/generation.md).

    Args:
        model: on its device, in its precision, in eval mode.
        prompts: how the model is addressed: its tokenizer, window and end tokens.
        how: sampling.
        slides: whether a text that outgrows the window goes on, without its beginning.

    Raises:
        ModelError: the model cannot go on without reading everything anew.
    """

    def __init__(self, model: PreTrainedModel, prompts: Prompts, how: Sampling, *, slides: bool):
        self._model, self._how, self._context = model, how, Context(model)
        self._of_row = {
            "how": how,
            "tokenizer": prompts.tokenizer,
            "ends": prompts.ends | prompts.single_tokens(how.stop),
            "window": prompts.window,
            "slides": slides,
        }
        self.num_slid = 0  # texts so far that were continued without their beginning

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        keys: Sequence[int],
        batch_size: int,
        advance: Callable[[int], None] = lambda number: None,
    ) -> list[Answer]:
        """Continue prompts, those of similar length together; a batch that memory has no room for is halved.

        Args:
            prompts: token ids of each.
            keys: of each row's draws, such as its number in a file.
            batch_size: rows at once.
            advance: told how many more are done.
        """
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        rows: dict[int, Row] = {}
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            rows |= zip(part, self._write([prompts[i] for i in part], [keys[i] for i in part]), strict=True)
            advance(len(part))
        self.num_slid += sum(row.has_slid for row in rows.values())
        return [rows[i].answer() for i in range(len(prompts))]

    def answer(
        self, prompt: Sequence[int], *, key: int, show: Callable[[str], None], is_stopping: Callable[[], bool] = lambda: False
    ) -> Answer:
        """Continue one prompt while somebody reads along. What it shares with the last one is not read again.

        Args:
            prompt: token ids.
            key: of its draws.
            show: gets each new piece of text.
            is_stopping: asked after each token.
        """
        row = Row(prompt, key=key, is_shown=True, **self._of_row)
        for _ in self._steps([row], self._context):
            if row.finish_reason is None and is_stopping():
                row.interrupt()
            if piece := row.fresh():
                show(piece)
        self.num_slid += row.has_slid
        return row.answer()

    def _write(self, prompts: Sequence[Sequence[int]], keys: Sequence[int]) -> list[Row]:
        rows = [Row(prompt, key=key, **self._of_row) for prompt, key in zip(prompts, keys, strict=True)]
        try:
            for _ in self._steps(rows, Context(self._model)):
                pass
            return rows
        except (RuntimeError, MemoryError) as e:
            if not is_out_of_memory(e) or len(rows) == 1:
                raise
        memory.free()
        half = len(rows) // 2
        return self._write(prompts[:half], keys[:half]) + self._write(prompts[half:], keys[half:])

    @torch.inference_mode()
    def _steps(self, rows: Sequence[Row], context: Context) -> Iterator[None]:
        """Write until all rows are finished; yields after each token."""
        left = [row for row in rows if row.finish_reason is None]
        while left:
            logits_BV = context.start([row.context for row in left])
            has_slid = False
            while left and not has_slid:
                tokens = self._next(logits_BV, left)
                has_slid = any([row.take(token) for row, token in zip(left, tokens, strict=True)])
                yield
                staying = [i for i, row in enumerate(left) if row.finish_reason is None]
                if len(staying) < len(left):
                    left = [left[i] for i in staying]
                    if left and not has_slid:
                        context.keep(staying)
                if left and not has_slid:
                    logits_BV = context.step([row.tokens[-1] for row in left])

    def _next(self, logits_BV: Tensor, rows: Sequence[Row]) -> list[int]:
        how = self._how
        if how.repetition_penalty != 1:
            logits_BV = penalized(logits_BV.float(), [row.tokens for row in rows], how.repetition_penalty)
        if how.temperature == 0:
            return logits_BV.argmax(-1).tolist()
        return draw(logits_BV, np.array([row.uniform for row in rows]), how).tolist()
