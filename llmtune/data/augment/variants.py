"""Variants of rows that were made before training, of which each epoch draws one."""

from typing import Any

from llmtune.data.prepared import Split
from llmtune.randomness import generator


class Variants:
    """Texts in place of those of the train rows.

    Args:
        split: the variants of the first row, then those of the second, and so on.
        per_row: how many a row has.
    """

    def __init__(self, split: Split, *, per_row: int):
        self.split, self.per_row = split, per_row

    def drawn(self, example: dict[str, Any], seed: int, epoch: int) -> dict[str, Any]:
        """The example with the texts of one of its variants, or as it is: all of them are as likely."""
        number = int(generator(seed, "variant", epoch, example["id"], example.get("repeat", 0)).integers(self.per_row + 1))
        if number == self.per_row:
            return example
        return {**example, **self.split.row(example["id"] * self.per_row + number)}
