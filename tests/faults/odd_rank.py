"""Runs a command line of llmtune on several ranks, one of which meets something that the others do not.

    torchrun odd_rank.py WHAT -- ARGS

`nan ROW`: a loss that is no number, on the rank that gets this train row; `gradient RANK STEP`: an infinite gradient there;
`error RANK STEP` and `model RANK`: a bug there, in a step or before the first. What each rank saw is told as `rank R saw ...`.
"""

import os
import sys

import torch

from llmtune.__main__ import main
from llmtune.commands import stage
from llmtune.tasks.base import LossTerms
from llmtune.tasks.classification import ClassificationTask

RANK = int(os.environ.get("RANK", "0"))
whole_loss, whole_model = ClassificationTask.loss, stage._model
steps = 0


class Infinite(torch.autograd.Function):
    """Nothing forward, an infinite gradient backward."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("inf")


def odd_loss(self, model, batch):
    global steps
    steps += 1
    terms, here = whole_loss(self, model, batch), [RANK, steps] == [int(word) for word in words]
    if what == "nan" and int(words[0]) in batch.example_ids.tolist() and batch.num_targets:
        print(f"rank {RANK} saw {sorted(batch.example_ids.tolist())}", file=sys.stderr, flush=True)
        return LossTerms(terms.sum * float("nan"))
    if what == "gradient" and here:
        return LossTerms(Infinite.apply(terms.sum))
    if what == "error" and here:
        raise KeyError("a bug on one rank")
    return terms


def odd_model(*args):
    if what == "model" and int(words[0]) == RANK:
        raise KeyError("a bug on one rank")
    return whole_model(*args)


if __name__ == "__main__":
    cut = sys.argv.index("--")
    what, *words = sys.argv[1:cut]
    ClassificationTask.loss, stage._model = odd_loss, odd_model
    sys.argv[1:] = sys.argv[cut + 1 :]
    sys.exit(main())
