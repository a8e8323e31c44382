"""Gradual unfreezing, step by step."""

import copy

import pytest
import torch

from llmtune.config.sections.tuning import GradualTuning
from llmtune.errors import ConfigError
from llmtune.models import registry
from llmtune.training import openings
from llmtune.training.plan import TrainPlan, Window
from tests import tiny
from tests.unit.training.test_plan import LENGTHS, training


def gradual(**changes) -> GradualTuning:
    values = {"open_every": None, "open_at": None, "layers_at_once": 1, "lr_decay": 1.0}
    return GradualTuning(type="gradual", **{**values, **changes})


def plan(**changes) -> TrainPlan:
    """100 rows in batches of 8: 13 steps an epoch, or as many as a token budget makes of them."""
    return TrainPlan(LENGTHS, training(**changes), seed=0, sampler=None)


def places(made: openings.Openings) -> list[str]:
    return [", ".join(names) for names, _ in made.parts]


def test_the_head_is_first_and_the_word_vectors_are_last():
    model = tiny.model("bert", "classification", num_hidden_layers=5)
    assert places(openings.build(model, gradual(open_every=1.0))) == [
        "head", "layer 4", "layer 3", "layer 2", "layer 1", "layer 0", "embeddings",
    ]  # fmt: skip
    two = openings.build(model, gradual(open_every=1.0, layers_at_once=2))
    assert places(two) == ["head", "layer 4, layer 3", "layer 2, layer 1", "layer 0", "embeddings"]
    held = [id(p) for _, parameters in two.parts for p in parameters]
    assert len(held) == len(set(held)) == len(list(model.parameters()))


def test_a_head_that_is_the_embedding():
    with pytest.raises(ConfigError, match="use tuning=full or lora"):
        openings.build(tiny.model("gpt2", "causal_lm"), gradual(open_every=1.0))


def test_an_opening_every_so_many_epochs():
    made, steps = openings.build(tiny.model("bert", "classification"), gradual(open_every=0.5)), plan(epochs=3)
    numbers = [made.number(step, steps) for step in range(steps.total_steps)]
    assert numbers == [min(4, 1 + int(step / 13 / 0.5)) for step in range(39)] and numbers[6:8] == [1, 2]


def test_an_opening_at_shares_of_the_run_the_last_of_which_opens_the_rest():
    made, steps = openings.build(tiny.model("bert", "classification"), gradual(open_at=(0.25, 0.5))), plan(max_steps=20)
    assert [made.number(step, steps) for step in range(20)] == [1] * 5 + [2] * 5 + [4] * 10
    assert made.complete_after(9, steps) is None and made.complete_after(10, steps) == made.complete_after(19, steps) == 10


def test_epochs_of_a_token_budget_have_steps_of_their_own():
    made, steps = (
        openings.build(tiny.model("bert", "classification"), gradual(open_every=1.0)),
        plan(epochs=3, max_tokens_per_batch=300),
    )
    epochs = [planned.epoch for planned in steps.steps(0)]
    fresh = plan(epochs=3, max_tokens_per_batch=300)  # asked from the end, as after a resume
    found = [made.number(step, fresh) for step in reversed(range(len(epochs)))][::-1]
    assert found == [1 + epoch for epoch in epochs] and set(found) == {1, 2, 3}


def test_what_learns_is_a_function_of_the_step():
    """Only open weights have a gradient and a state of the optimizer; the loop before a step makes it so from any beginning."""
    model, steps = tiny.model("bert", "classification"), plan(max_steps=4)
    made = openings.build(model, gradual(open_at=(0.25, 0.5, 0.75)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    windows = [Window(step, 0, False, []) for step in range(4)]
    seen = []
    for window in made.before(windows, steps):
        before = copy.deepcopy(model.state_dict())
        model(**tiny.batch()).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        seen.append(sorted({tiny_place(name) for name in changed}))
        assert {id(p) for p in optimizer.state} == {id(p) for _, held in made.parts[: window.step + 1] for p in held}
    assert seen == [
        ["head"], ["head", "layer.1"], ["head", "layer.0", "layer.1"], ["embeddings", "head", "layer.0", "layer.1"],
    ]  # fmt: skip


def tiny_place(name: str) -> str:
    return next((place for place in ("embeddings", "layer.0", "layer.1") if place in name), "head")


def test_a_model_of_our_own(section):
    made = registry.build(section("model/lstm", num_layers=2), tiny.spec("classification"))
    assert places(openings.build(made, gradual(open_every=1.0))) == ["head", "layer 1", "layer 0", "embeddings"]
