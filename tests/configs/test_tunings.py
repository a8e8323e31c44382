"""Ways to open weights that do not go with the model, the task or the training are told before anything is loaded."""

import pytest

from llmtune.config import compose
from llmtune.errors import ConfigError

BERT, GPT = ["model=bert", "model.pretrained=a/b"], ["model=gpt", "model.pretrained=a/b"]
GRADUAL = [*BERT, "tuning=gradual"]

# the overrides, and what the message has to say
MISTAKES = {
    **{
        f"{name} of an lstm": (["model=lstm", f"tuning={name}"], f"tuning: {name} needs a transformers model")
        for name in ("lora", "rslora", "dora", "pissa", "qlora", "ia3", "prefix", "prompt")
    },
    **{
        f"{name} from scratch": (["model=bert", f"tuning={name}"], "set model.pretrained, or use tuning=full")
        for name in ("head", "gradual", "pattern", "lora", "ia3", "prompt")
    },
    "patterns that change nothing": ([*BERT, "tuning=pattern"], "tuning.freeze: is empty"),
    "no openings": ([*GRADUAL, "tuning.open_every=null"], "tuning.open_at: is null"),
    "two kinds of openings": ([*GRADUAL, "tuning.open_at=[0.5]"], "tuning.open_at: is set"),
    "openings out of order": ([*GRADUAL, "tuning.open_every=null", "tuning.open_at=[0.5,0.2]"], "in rising order"),
    "an opening twice": ([*GRADUAL, "tuning.open_every=null", "tuning.open_at=[0.5,0.5]"], "in rising order"),
    "no opening at all": ([*GRADUAL, "tuning.open_every=null", "tuning.open_at=[]"], "in rising order"),
    "an opening after the end": ([*GRADUAL, "tuning.open_every=null", "tuning.open_at=[1.5]"], "less than 1"),
    "4 bits of a compiled model": ([*BERT, "tuning=qlora", "hardware.compile=true"], "weights of tuning=qlora are made"),
    "openings of a compiled model": ([*GRADUAL, "hardware.compile=true"], "hardware.compile: a compiled model"),
    "a rate that rises downwards": ([*BERT, "tuning=layerwise", "tuning.lr_decay=1.1"], "tuning.lr_decay: "),
    "prefix of a masked language model": ([*BERT, "task=masked_lm", "tuning=prefix"], "use tuning=lora or ia3"),
    "prompt before a causal classifier": ([*GPT, "tuning=prompt"], "use tuning=prefix"),
    "prefix with activations anew": (
        [*BERT, "tuning=prefix", "training.activation_checkpointing=true"], "training.activation_checkpointing: does not go",
    ),
    "prefix before isolated rows": (
        [*GPT, "task=causal_lm", "task.isolate_documents=true", "tuning=prefix"], "task.isolate_documents: counts positions",
    ),
}  # fmt: skip
FINE = {
    "layer-wise rates from scratch": ["model=lstm", "tuning=layerwise"],
    "gradual with patience": [*GRADUAL, "training.early_stopping_patience=2"],
    "prefix of a causal classifier": [*GPT, "tuning=prefix"],
    "prompt of a causal model": [*GPT, "task=causal_lm", "tuning=prompt"],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake(name: str):
    overrides, said = MISTAKES[name]
    with pytest.raises(ConfigError) as refused:
        compose.compose("train", ["data.train_file=x.csv", *overrides])
    assert said in str(refused.value)


@pytest.mark.parametrize("name", FINE)
def test_fine(name: str):
    compose.compose("train", ["data.train_file=x.csv", *FINE[name]])
