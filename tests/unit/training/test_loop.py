"""The loop: the gradient does not depend on how a step is cut, and nothing non-finite reaches the weights."""

import numpy as np
import pytest
import torch
from torch import nn

from llmtune.config.sections.training import HardwareConfig
from llmtune.errors import DivergedError
from llmtune.tasks.base import Batch, LossTerms
from llmtune.training.distributed import Ranks
from llmtune.training.loop import train_steps
from llmtune.training.plan import Window
from llmtune.training.precision import Compute

CPU = Compute(torch.device("cpu"), "fp32")
HARDWARE = HardwareConfig(device="cpu", precision="fp32", num_threads=None, num_workers=0, compile=False)


class SquareTask:
    """A linear model's squared error, summed."""

    def loss(self, model, batch):
        return LossTerms((model(batch.inputs["x"]).squeeze(-1) - batch.targets["y"]).square().sum())


def batch_of(rows: np.ndarray, *, dtype=torch.float64, factor: float = 1.0) -> Batch:
    x = torch.tensor(np.random.default_rng(0).normal(size=(20, 3)), dtype=dtype)[rows] * factor
    y = torch.arange(20, dtype=dtype)[rows]
    return Batch({"x": x}, {"y": y}, torch.as_tensor(rows), torch.ones(len(rows), dtype=torch.int64), float(len(rows)))


def run_window(batches, *, model=None, max_grad_norm=None):
    torch.manual_seed(0)
    model = model if model is not None else nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps = train_steps(
        model,
        SquareTask().loss,
        [Window(0, 0, False, batches)],
        optimizer,
        lr_factor=lambda step: 0.5,
        compute=CPU,
        ranks=Ranks(HARDWARE),
        seed=0,
        max_grad_norm=max_grad_norm,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        after_update=lambda step: None,
        is_stopping=lambda: False,
    )
    return model, list(steps)


@pytest.mark.parametrize("cuts", [1, 2, 4, 7])
def test_accumulation_gives_the_same_step(cuts):
    whole, [one] = run_window([batch_of(np.arange(17))])
    parts, [many] = run_window([batch_of(rows) for rows in np.array_split(np.arange(17), cuts)])
    assert many.loss == pytest.approx(one.loss, rel=1e-12)
    assert many.grad_norm == pytest.approx(one.grad_norm, rel=1e-10)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-10, atol=1e-12)


def test_equals_a_step_written_by_hand():
    torch.manual_seed(0)
    reference = nn.Linear(3, 1).double()
    batch = batch_of(np.arange(8))
    loss = (reference(batch.inputs["x"]).squeeze(-1) - batch.targets["y"]).square().mean()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    torch.optim.SGD(reference.parameters(), lr=0.005).step()
    model, [result] = run_window([batch], max_grad_norm=1.0)
    assert (result.step, result.lr, result.num_examples) == (1, 0.005, 8)
    assert result.loss == pytest.approx(loss.item())
    assert result.grad_norm == pytest.approx(norm.item())
    torch.testing.assert_close(model.weight, reference.weight)


def test_an_idle_batch_changes_nothing():
    busy = batch_of(np.arange(6))
    idle = Batch(busy.inputs, busy.targets, busy.example_ids, busy.lengths, 0.0)
    alone, [one] = run_window([busy])
    beside, [two] = run_window([busy, idle])
    assert (one.loss, one.num_examples) == (two.loss, two.num_examples)
    assert torch.equal(alone.weight, beside.weight)


@pytest.mark.parametrize("factor", [float("nan"), 1e200])
def test_stops_before_a_non_finite_update(factor):
    model = nn.Linear(3, 1).double()
    before = model.weight.clone()
    with pytest.raises(DivergedError, match="step 1") as caught:
        run_window([batch_of(np.array([4, 9]), factor=factor)], model=model)
    assert "train rows 4, 9" in caught.value.where
    assert torch.equal(model.weight, before)
