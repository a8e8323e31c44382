"""With hardware.compile the loop calls the compiled model; whole runs of it are among tests/faults, as slow ones."""

from types import SimpleNamespace

import torch

from llmtune.training.trainer import Trainer
from tests import tiny


def test_what_the_loop_calls():
    model = tiny.model("gpt2", "causal_lm")
    ranks = SimpleNamespace(prepare=lambda called, opens_later: (called, opens_later))
    compiled = torch.compile(model, dynamic=True)
    trainer = SimpleNamespace(model=model, compiled=compiled, openings=None, ranks=ranks)
    assert Trainer.called(trainer) == (compiled, False)
    trainer.compiled = None
    assert Trainer.called(trainer) == (model, False)
