"""Which examples make up which step. A plan is a pure function of seed, epoch and stored lengths: it is never stored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmtune.randomness import generator

# Examples of similar length are looked for among this many batches: enough for little padding, few enough for a
# different company in every epoch.
POOL_BATCHES = 64
_PIECE = 1 << 16  # examples whose lengths are Python numbers at a time


@dataclass(frozen=True)
class BatchRule:
    """How examples are cut into steps.

    Attributes:
        batch_size: examples of one optimizer step.
        max_tokens: tokens of one optimizer step, padding included, instead of batch_size; None: batch_size counts.
        group_by_length: whether examples of similar length share a step.
    """

    batch_size: int
    max_tokens: int | None = None
    group_by_length: bool = True


def plan_epoch(lengths_N: np.ndarray, rule: BatchRule, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The steps of one epoch, each the indices of its examples; every example occurs exactly once.

    Args:
        lengths_N: tokens of each example.
        rule: how the steps are cut.
        seed: of the run.
        epoch: from 0.
    """
    rng = generator(seed, "order", epoch)
    order = rng.permutation(np.arange(len(lengths_N), dtype=np.int32))
    if rule.group_by_length:
        pool = POOL_BATCHES * _examples_per_batch(lengths_N, rule)
        for i in range(0, len(order), pool):
            part = order[i : i + pool]
            part[:] = part[np.argsort(lengths_N[part], kind="stable")]
    batches = _cut(order, lengths_N, rule)
    return [batches[i] for i in rng.permutation(len(batches))] if rule.group_by_length else batches


def deal(lengths_B: np.ndarray, *, num_micro_batches: int) -> list[np.ndarray]:
    """Cut one step into micro-batches of near equal size, similar lengths together. Some are empty if examples are few.

    Args:
        lengths_B: tokens of each example of the step.
        num_micro_batches: how many.

    Returns:
        The places of each micro-batch's examples in the step.
    """
    order = np.argsort(lengths_B, kind="stable") if num_micro_batches > 1 else np.arange(len(lengths_B))
    return np.array_split(order, num_micro_batches)


def padding_share(batches: Sequence[np.ndarray], lengths_N: np.ndarray) -> float:
    """Share of the positions that hold padding."""
    padded = sum(len(b) * int(lengths_N[b].max()) for b in batches if len(b))
    return 1 - int(lengths_N.sum()) / padded if padded else 0.0


def evaluation_batches(lengths_N: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """All examples in batches of similar length, longest first: memory runs out at once or never."""
    order = np.argsort(-lengths_N, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def _examples_per_batch(lengths_N: np.ndarray, rule: BatchRule) -> int:
    if rule.max_tokens is None:
        return rule.batch_size
    return max(1, int(rule.max_tokens / max(1.0, float(lengths_N.mean()))))


def _cut(order: np.ndarray, lengths_N: np.ndarray, rule: BatchRule) -> list[np.ndarray]:
    if rule.max_tokens is None:
        return [order[i : i + rule.batch_size] for i in range(0, len(order), rule.batch_size)]
    batches, start, longest = [], 0, 0
    for first in range(0, len(order), _PIECE):
        for i, length in enumerate(lengths_N[order[first : first + _PIECE]].tolist(), first):
            longest = max(longest, length)
            if i > start and longest * (i - start + 1) > rule.max_tokens:
                batches.append(order[start:i])
                start, longest = i, length
    return [*batches, order[start:]] if len(order) else []
