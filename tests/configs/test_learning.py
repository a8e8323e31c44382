"""Optimizers, schedules, averages and layer drop that do not go together are told before anything is loaded."""

import pytest

from llmtune.config import compose
from llmtune.errors import ConfigError

FREE = "optimizer=schedule_free"

# the overrides, and what the message has to say
MISTAKES = {
    "schedule_free that decays": ([FREE, "schedule=cosine"], ["schedule: cosine", "schedule=constant"]),
    "schedule_free as it comes": ([FREE], ["schedule: linear", "schedule=constant"]),
    "two averages": ([FREE, "schedule=constant", "averaging=ema"], ["averaging", "averaging=none"]),
    "warm-up and decay": (["schedule=wsd", "schedule.warmup_ratio=.5", "schedule.decay_ratio=.6"], ["schedule.decay_ratio"]),
    "warm-up of steps and decay": (
        ["schedule=wsd", "schedule.warmup_steps=90", "training.max_steps=100"],
        ["schedule.decay_ratio", "0.9 of the steps", "0.2"],
    ),
    "a long warm-up": (["schedule.warmup_steps=90", "training.max_steps=9"], ["schedule.warmup_steps", "longer than the run"]),
    "no timescale": (["schedule=inverse_sqrt", "schedule.warmup_ratio=0"], ["schedule.timescale", "schedule.warmup_steps"]),
    "nesterov without momentum": (
        ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"],
        ["optimizer.nesterov", "optimizer.momentum"],
    ),
    "a key of another optimizer": (["optimizer=lion", "optimizer.eps=1e-8"], ["optimizer.eps", "eps"]),
    "no decay at all": (["schedule=wsd", "schedule.decay_ratio=0"], ["schedule.decay_ratio", "greater than 0"]),
    "average of everything": (["averaging=ema", "averaging.decay=1"], ["averaging.decay", "less than 1"]),
    "muon of updates": (
        ["model=bert", "model.pretrained=a/b", "tuning=lora", "optimizer=muon"],
        ["optimizer: muon", "tuning=lora", "optimizer=adamw"],
    ),
    "layers of an lstm": (["training.layer_drop=.1"], ["training.layer_drop", "transformers"]),
    "layers of a compiled model": (
        ["model=bert", "training.layer_drop=.1", "hardware.compile=true"],
        ["training.layer_drop", "hardware.compile=false"],
    ),
    "all layers": (["model=bert", "training.layer_drop=1"], ["training.layer_drop", "less than 1"]),
}
FINE = {
    "schedule_free with a warm-up": [FREE, "schedule=constant", "schedule.warmup_ratio=.1"],
    "warm-up and decay are the run": ["schedule=wsd", "schedule.warmup_ratio=.5", "schedule.decay_ratio=.5"],
    "one_cycle has no warm-up": ["schedule=one_cycle", "training.max_steps=3"],
    "a timescale": ["schedule=inverse_sqrt", "schedule.warmup_steps=0", "schedule.timescale=10"],
    "an average of cycles": ["averaging=swa", "averaging.every=50", "schedule=cosine_restarts"],
    "layer drop with activations that are computed twice": [
        "model=bert",
        "training.layer_drop=.1",
        "training.activation_checkpointing=true",
    ],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name: str):
    overrides, words = MISTAKES[name]
    with pytest.raises(ConfigError) as told:
        compose.compose("train", ["data.train_file=x.csv", *overrides])
    for word in words:
        assert word in str(told.value), f"{word!r} is not in:\n{told.value}"


@pytest.mark.parametrize("name", FINE)
def test_fine(name: str):
    compose.compose("train", ["data.train_file=x.csv", *FINE[name]])


def test_a_second_stage_averages_in_its_own_way():
    args = ["data.train_file=x.csv", "averaging=ema", "+finetune.averaging={type: swa, every: 3}"]
    composed = compose.compose("run", args).config
    assert composed.averaging.type == "ema" and composed.finetune.averaging.type == "swa"
    assert composed.finetune.averaging.every == 3 and composed.finetune.averaging.start_ratio == 0.75
