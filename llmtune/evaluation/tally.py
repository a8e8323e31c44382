"""What the metrics of a split follow from, added up batch by batch: the memory does not grow with the split.

A regression is the exception: the rank correlation needs all of its pairs of numbers, 16 bytes an example.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from llmtune.tasks.base import Scores


@dataclass
class Tally:
    """Sums over examples.

    Attributes:
        num_examples: that were added.
        loss_sum: over all targets.
        num_targets: targets of all examples.
        num_correct: right tokens, of a task that counts them.
        pairs: how often a class (first) was predicted as another or itself (second).
        unbiased_pairs: the same without thresholds, of a task that has moved them.
        numbers: references and predictions of a regression, float64 [2, B] a batch.
        sums: those of the batches, by name.
    """

    num_examples: int = 0
    loss_sum: float = 0.0
    num_targets: float = 0.0
    num_correct: int = 0
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    unbiased_pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    numbers: list[np.ndarray] = field(default_factory=list)
    sums: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, scores: Scores) -> None:
        """Count the examples of one batch."""
        self.num_examples += len(scores.loss_sums)
        self.loss_sum += float(scores.loss_sums.sum())
        self.num_targets += float(scores.weights.sum())
        self._add_sums(scores.sums)
        outputs = scores.outputs
        self.num_correct += int(outputs["num_correct"].sum()) if "num_correct" in outputs else 0
        if "reference" in outputs and not scores.sums:
            both_2B = np.stack([outputs["reference"], outputs["prediction"]])
            if both_2B.dtype.kind == "f":
                self.numbers.append(both_2B)
            else:
                self.pairs.update(zip(*both_2B.tolist(), strict=True))
            if "unbiased" in outputs:
                self.unbiased_pairs.update(zip(outputs["reference"].tolist(), outputs["unbiased"].tolist(), strict=True))

    def _add_sums(self, sums: dict[str, np.ndarray]) -> None:
        self.sums = {name: self.sums.get(name, 0) + values for name, values in sums.items()} or self.sums


def total(tallies: Iterable[Tally]) -> Tally:
    """One tally for the examples of all."""
    whole = Tally()
    for tally in tallies:
        whole.num_examples += tally.num_examples
        whole.loss_sum += tally.loss_sum
        whole.num_targets += tally.num_targets
        whole.num_correct += tally.num_correct
        whole.pairs.update(tally.pairs)
        whole.unbiased_pairs.update(tally.unbiased_pairs)
        whole.numbers += tally.numbers
        whole._add_sums(tally.sums)
    return whole
