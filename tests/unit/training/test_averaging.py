"""Averages of the weights: their formulas, and that the newest weights come back to the bit."""

import pytest
import torch
from torch import nn

from llmtune.config.sections.averaging import AveragingConfig, Ema, NoAveraging, Swa
from llmtune.errors import CheckpointError
from llmtune.training.averaging import Averages, decay_at
from llmtune.training.live_rows import LiveRows
from llmtune.training.parameter_groups import ParameterGroup

NONE = NoAveraging(type="none")
EMA = Ema(type="ema", decay=0.9, warmup=False)
STEPS = 12


def walk(averaging: AveragingConfig, *, model: nn.Module | None = None, steps: int = STEPS) -> tuple[nn.Module, Averages, list]:
    """A model whose weights change at random; the average, and the weights after each step."""
    torch.manual_seed(0)
    model = model or nn.Linear(3, 2)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=1.0)
    averages = Averages(model, [ParameterGroup("head", weights, 1.0, 0.0)], averaging, optimizer, total_steps=STEPS)
    seen = []
    for step in range(steps):
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn_like(weight))
        averages.update(step)
        seen.append([weight.detach().clone() for weight in weights])
    return model, averages, seen


def in_place(model: nn.Module, averages: Averages) -> list[torch.Tensor]:
    with averages.in_place():
        return [p.detach().clone() for p in model.parameters()]


def test_without_averaging_the_newest_are_judged():
    model, averages, seen = walk(NONE)
    assert not averages.is_on
    with averages.in_place() as newest:
        assert newest == {} and torch.equal(model.weight, seen[-1][0])


def test_ema_is_its_formula():
    model, averages, seen = walk(EMA)
    expected = seen[0]
    for weights in seen[1:]:
        expected = [0.9 * mean + 0.1 * weight for mean, weight in zip(expected, weights, strict=True)]
    for ours, theirs in zip(in_place(model, averages), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_decay_rises_to_its_value():
    config = Ema(type="ema", decay=0.9, warmup=True)
    assert [decay_at(n, config) for n in (1, 8, 80, 81, 1000)] == pytest.approx([2 / 11, 0.5, 0.9, 0.9, 0.9])
    assert decay_at(1, EMA) == 0.9


@pytest.mark.parametrize(("start", "every", "counted"), [(0.0, 1, range(12)), (0.5, 1, range(6, 12)), (0.3, 3, (4, 7, 10))])
def test_swa_is_the_plain_mean(start: float, every: int, counted):
    model, averages, seen = walk(Swa(type="swa", start_ratio=start, every=every))
    assert averages.count == len(counted)
    for i, ours in enumerate(in_place(model, averages)):
        assert torch.allclose(ours, torch.stack([seen[step][i] for step in counted]).mean(0), atol=1e-6)


def test_before_it_begins_the_newest_are_judged():
    model, averages, seen = walk(Swa(type="swa", start_ratio=0.9, every=1), steps=5)
    assert averages.is_on and averages.count == 0 and torch.equal(in_place(model, averages)[0], seen[-1][0])


def test_the_newest_come_back_to_the_bit():
    model, averages, seen = walk(EMA)
    place = model.weight.data_ptr()
    with averages.in_place() as newest:
        assert torch.equal(newest["weight"], seen[-1][0]) and not torch.equal(model.weight, newest["weight"])
    assert torch.equal(model.weight, seen[-1][0]) and model.weight.data_ptr() == place
    with pytest.raises(ZeroDivisionError), averages.in_place():
        raise ZeroDivisionError
    assert torch.equal(model.weight, seen[-1][0])


def test_it_goes_on_from_what_a_checkpoint_holds():
    model, averages, seen = walk(EMA)
    torch.manual_seed(0)
    other = nn.Linear(3, 2)
    again = Averages(
        other, [ParameterGroup("head", list(other.parameters()), 1.0, 0.0)], EMA, averages._optimizer, total_steps=9
    )
    with averages.in_place() as newest:
        other.load_state_dict(model.state_dict())
        again.resume(averages.count, {name: weight.clone() for name, weight in newest.items()})
    assert torch.equal(other.weight, model.weight) and again.count == averages.count
    for each in (averages, again):
        each.update(STEPS)
    assert all(map(torch.equal, in_place(model, averages), in_place(other, again)))
    with pytest.raises(CheckpointError, match="do not fit"):
        again.resume(1, {"other": torch.zeros(1)})


def test_what_is_frozen_is_left_alone():
    model = nn.Sequential(nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2))
    frozen = model[0].weight.clone()
    _, averages, _ = walk(EMA, model=model)
    with averages.in_place() as newest:
        assert sorted(newest) == ["1.bias", "1.weight"] and torch.equal(model[0].weight, frozen)


def test_the_whole_table_has_the_average_of_the_rows_that_learn():
    whole = nn.Embedding(6, 2)
    model = nn.Sequential(LiveRows(whole, torch.tensor([1, 4])))
    _, averages, seen = walk(EMA, model=model)
    model[0].mark_changed()  # as a step of training does
    ids = torch.arange(6)
    newest = model.eval()(ids)
    with averages.in_place() as weights:
        averaged, mean = model(ids), model[0].weight.detach().clone()
        assert torch.equal(model.state_dict()["0.weight"], averaged) and torch.equal(weights["0.weight"], seen[-1][0])
    assert torch.equal(averaged[[1, 4]], mean) and torch.equal(averaged[[0, 2, 3, 5]], whole.weight[[0, 2, 3, 5]])
    assert torch.equal(model(ids), newest) and torch.equal(newest[[1, 4]], seen[-1][0])


def test_of_schedule_free_it_is_the_librarys_own():
    from schedulefree import AdamWScheduleFree

    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = AdamWScheduleFree(model.parameters(), lr=0.1)
    optimizer.train()
    averages = Averages(model, [ParameterGroup("head", list(model.parameters()), 1.0, 0.0)], NONE, optimizer, total_steps=9)
    assert averages.is_on
    for _ in range(4):
        model.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    before, averaged = model.weight.detach().clone(), in_place(model, averages)
    assert torch.equal(model.weight, before)
    optimizer.eval()
    assert torch.allclose(model.weight, averaged[0], atol=1e-6) and not torch.allclose(before, averaged[0], atol=1e-4)
