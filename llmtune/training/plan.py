"""All steps of a run, known before the first, and turned into windows of micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmtune.config.sections.training import TrainingConfig
from llmtune.data.batches import BatchRule, deal, plan_epoch
from llmtune.data.prepared import Split
from llmtune.data.sampling import ClassSampler
from llmtune.errors import DataError
from llmtune.tasks.base import Batch, Draw, Task
from llmtune.training.distributed import Ranks
from llmtune.training.loader import load


@dataclass(frozen=True)
class PlannedStep:
    """One optimizer step: the examples of all ranks and micro-batches.

    Attributes:
        step, epoch: from 0.
        ends_epoch: whether it is the last of its epoch.
        indices: row of each example, whole numbers.
        repeats: how often each of these rows came before in the same epoch, likewise.
    """

    step: int
    epoch: int
    ends_epoch: bool
    indices: np.ndarray
    repeats: np.ndarray


@dataclass(frozen=True)
class Window:
    """What one rank computes for one optimizer step; `step` counts from 0."""

    step: int
    epoch: int
    ends_epoch: bool
    batches: list[Batch]


class TrainPlan:
    """The steps of a run as a pure function of seed, stored lengths and the sampler.

    Args:
        lengths_N: tokens of each train example.
        training: batch size, epochs, steps.
        seed: of the run.
        sampler: the rows of each epoch; None: each row once.

    Raises:
        DataError: there is no example.
    """

    def __init__(self, lengths_N: np.ndarray, training: TrainingConfig, *, seed: int, sampler: ClassSampler | None = None):
        if not len(lengths_N):
            raise DataError("there are no train rows")
        self._lengths_N, self._seed, self._sampler = lengths_N, seed, sampler
        self._num_rows = len(lengths_N) if sampler is None else sampler.num_rows
        self._rule = BatchRule(training.batch_size, training.max_tokens_per_batch, training.group_by_length)
        self._epochs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}  # the last one that was planned
        self._sizes: dict[int, int] = {}  # steps of each epoch
        self._known = (0, 0)  # an epoch and its first step
        self.total_steps = self._count(training)

    def steps(self, start: int) -> Iterator[PlannedStep]:
        """The steps from `start` (from 0) to the end of the run."""
        epoch, first = self._locate(start)
        while first < self.total_steps:
            num_steps = self._num_steps(epoch)
            batches = self._epoch(epoch)
            for i in range(max(0, start - first), min(num_steps, self.total_steps - first)):
                yield PlannedStep(first + i, epoch, i == num_steps - 1, *batches[i])
            first, epoch = first + num_steps, epoch + 1

    def place_of(self, step: int) -> tuple[int, int]:
        """The epoch that a step belongs to, and the first step of that epoch."""
        return self._locate(step)

    def epochs_at(self, step: int) -> float:
        """Passes over the rows that are done before a step, parts of one included."""
        epoch, first = self._locate(step)
        return epoch + (step - first) / self._num_steps(epoch)

    def remember(self, epoch: int, first: int) -> None:
        """Take what `place_of` said of a step: with a token budget it spares the planning of all epochs before."""
        self._known = (epoch, first)

    def epochs_done(self, steps: int) -> tuple[int, bool]:
        """Epochs that are complete after a number of steps, and whether the last step ended one."""
        epoch, first = self._locate(steps)
        return epoch, first == steps > 0

    def num_examples(self, step: int) -> int:
        """Examples of a step (from 0)."""
        return len(next(self.steps(step)).indices)

    def _locate(self, step: int) -> tuple[int, int]:
        """The epoch that a step belongs to, and the first step of that epoch. Nothing is planned but for a token budget."""
        if self._rule.max_tokens is None:
            return step // self._num_steps(0), step - step % self._num_steps(0)
        epoch, first = self._known if self._known[1] <= step else (0, 0)
        while first + self._num_steps(epoch) <= step:
            first, epoch = first + self._num_steps(epoch), epoch + 1
        self._known = (epoch, first)
        return epoch, first

    def _count(self, training: TrainingConfig) -> int:
        if training.epochs is None:
            return training.max_steps
        whole = int(training.epochs)
        most = training.max_steps or float("inf")
        if self._rule.max_tokens is None:
            total = whole * self._num_steps(0)
        else:
            total = 0
            for epoch in range(whole):
                total += self._num_steps(epoch)
                if total >= most:
                    return training.max_steps
        if training.epochs > whole:
            total += max(1, round((training.epochs - whole) * self._num_steps(whole)))
        return min(total, training.max_steps or total)

    def _num_steps(self, epoch: int) -> int:
        if self._rule.max_tokens is None:
            return -(-self._num_rows // self._rule.batch_size)
        if epoch not in self._sizes:
            self._sizes[epoch] = len(self._epoch(epoch))
        return self._sizes[epoch]

    def _epoch(self, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rows and repeats of each step."""
        if epoch not in self._epochs:
            how = {"seed": self._seed, "epoch": epoch}
            if self._sampler is None:
                batches = plan_epoch(self._lengths_N, self._rule, **how)
                none = np.zeros(max(map(len, batches)), dtype=np.int32)
                steps = [(batch, none[: len(batch)]) for batch in batches]
            else:
                rows, repeats = self._sampler.epoch(epoch)
                places = plan_epoch(self._lengths_N[rows], self._rule, **how)
                steps = [(rows[batch], repeats[batch]) for batch in places]
            self._epochs = {epoch: steps}
        return self._epochs[epoch]


Key = tuple[int, list[int], list[int], bool]  # epoch, rows, their repeats, and whether they count for nothing


class _Collated:
    """Micro-batches by their key."""

    def __init__(self, split: Split, task: Task, seed: int):
        self._split, self._task, self._seed = split, task, seed

    def __call__(self, key: Key) -> Batch:
        epoch, indices, repeats, is_idle = key
        rows = zip(self._split.rows(indices), indices, repeats, strict=True)
        examples = [{**row, "id": index, "repeat": repeat} for row, index, repeat in rows]
        batch = self._task.collate(examples, Draw(self._seed, epoch))
        return batch if not is_idle else Batch(batch.inputs, batch.targets, batch.example_ids, batch.lengths, 0.0)


def windows(
    plan: TrainPlan,
    split: Split,
    task: Task,
    *,
    start: int,
    seed: int,
    num_micro_batches: int,
    ranks: Ranks,
    num_workers: int,
    pin_memory: bool,
) -> Iterator[Window]:
    """The windows of this rank from step `start` on.

    Every step is dealt into micro-batches × ranks; a rank that goes without runs one example of weight zero, since the
    others wait for it.
    """
    make = _Collated(split, task, seed)

    def keys() -> Iterator[Key]:
        for planned in plan.steps(start):
            yield from _keys(planned, split, num_micro_batches=num_micro_batches, ranks=ranks)

    batches = load(make, keys, num_workers=num_workers, pin_memory=pin_memory)
    for planned in plan.steps(start):
        yield Window(planned.step, planned.epoch, planned.ends_epoch, [next(batches) for _ in range(num_micro_batches)])


def window(planned: PlannedStep, split: Split, task: Task, *, seed: int, num_micro_batches: int, ranks: Ranks) -> Window:
    """What this rank computes for a single step; see `windows`."""
    make = _Collated(split, task, seed)
    batches = [make(key) for key in _keys(planned, split, num_micro_batches=num_micro_batches, ranks=ranks)]
    return Window(planned.step, planned.epoch, planned.ends_epoch, batches)


def _keys(planned: PlannedStep, split: Split, *, num_micro_batches: int, ranks: Ranks) -> Iterator[Key]:
    hands = deal(split.lengths[planned.indices], num_micro_batches=num_micro_batches * ranks.size)
    for hand in hands[ranks.rank :: ranks.size]:
        places = hand if len(hand) else [0]
        yield planned.epoch, planned.indices[places].tolist(), planned.repeats[places].tolist(), not len(hand)
