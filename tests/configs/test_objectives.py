"""Augmenters behind the text and objectives that do not go together, or with the task, are told before anything is loaded."""

import pytest

from llmtune.config import compose
from llmtune.errors import ConfigError

BERT = ["model=bert", "model.pretrained=a/b"]

# the overrides, and what the message has to say
MISTAKES = {
    "two passes": (["augment=[mixup,fgm]"], ["augment.fgm", "only one of", "augment.mixup and augment.fgm"]),
    "two mixups": (["augment=mixup", "+augment.m={type: mixup, alpha: 1}"], ["augment.m", "only one of"]),
    "a pass in each group": (["augment=word_mixup", "objective=r_drop"], ["objective.r_drop", "augment.word_mixup"]),
    "language model": (["model=bert", "task=masked_lm", "augment=[mask]"], ["augment.mask", "masked_lm", "~augment.mask"]),
    "mixup of a language model": (["model=gpt", "task=causal_lm", "augment=mixup"], ["augment.mixup", "causal_lm"]),
    "r-drop of a language model": (["model=gpt", "task=causal_lm", "objective=r_drop"], ["objective.r_drop", "causal_lm"]),
    "smoothing without classes": (["task=regression", "objective=label_smoothing"], ["objective.label_smoothing", "classes"]),
    "fgm with a frozen body": ([*BERT, "tuning=head", "augment=fgm"], ["augment.fgm", "tuning=head"]),
    "fgm compiled": (["hardware.compile=true", "augment=fgm"], ["augment.fgm", "hardware.compile=false"]),
    "word mixup with a frozen body": ([*BERT, "tuning=head", "augment=word_mixup"], ["word_mixup", "augment=mixup"]),
    "r-drop without dropout": (["model.dropout=0", "objective=r_drop"], ["objective.r_drop", "model.dropout"]),
    "two penalties of a kind": (["objective=l1", "+objective.m={type: l1, strength: 1}"], ["objective.m", "another l1"]),
    "tokens of numbers": (["model=mlp", "data.feature_columns=[x]", "augment=[mask]"], ["augment", "mixup"]),
    "no model for variants": (["augment=contextual"], ["augment.contextual.model", "is not set"]),
    "no strength": (["objective=l2", "objective.l2.strength=0"], ["objective.l2.strength", "greater than 0"]),
    "the whole row": (["augment=cutoff", "augment.cutoff.rate=1"], ["augment.cutoff.rate", "less than 1"]),
    "unknown replacement": (["augment=cutoff", "augment.cutoff.replace=unk"], ["augment.cutoff.replace", "nothing", "mask"]),
}
FINE = {
    "all that goes together": ["augment=[cutoff,mask,drop,fgm]", "objective=[l1,l2,label_smoothing]"],
    "r-drop with recurrent dropout": ["model.dropout=0", "model.recurrent_dropout=0.2", "objective=r_drop"],
    "r-drop of a regression": ["task=regression", "objective=r_drop"],
    "penalties of a language model": ["model=gpt", "task=causal_lm", "objective=[l1,l2]"],
    "mixup of numbers": ["model=mlp", "data.feature_columns=[x]", "augment=mixup"],
    "mixup with a frozen body": [*BERT, "tuning=head", "augment=mixup"],
    "fgm with updates": [*BERT, "tuning=lora", "augment=fgm"],
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


def test_a_second_stage_has_objectives_of_its_own():
    args = ["data.train_file=x.csv", "objective=[l1,l2]", "+finetune.objective={s: {type: label_smoothing, smoothing: 0.2}}"]
    composed = compose.compose("run", args).config
    assert list(composed.objective) == ["l1", "l2"] and list(composed.finetune.objective) == ["s"]
