"""How weights are opened for training."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Name, Positive, Section

Share = Annotated[float, Field(gt=0, lt=1)]
Decay = Annotated[float, Field(gt=0, le=1)]


class FullTuning(Section):
    """Every weight learns."""

    type: Literal["full"]


class HeadTuning(Section):
    """Only the task's head learns."""

    type: Literal["head"]


class LayerwiseTuning(Section):
    """Every weight learns, lower layers more slowly. Howard and Ruder 2018; Clark et al. 2020."""

    type: Literal["layerwise"]
    lr_decay: Decay
    """The rate of a layer as a share of the next higher one's; the head has optimizer.lr, the word vectors the lowest."""


class GradualTuning(Section):
    """The head learns first, then more and more layers from the top, the word vectors last. Howard and Ruder 2018."""

    type: Literal["gradual"]
    open_every: Positive | None
    """Epochs from one opening to the next; null: open_at decides."""
    open_at: tuple[Share, ...] | None
    """Shares of the run at which there is an opening; the last one opens all that is left. null: open_every decides."""
    layers_at_once: Count
    """Layers that an opening adds."""
    lr_decay: Decay
    """The rate of a layer as a share of the next higher one's; 1.0: all learn at the same rate."""


class PatternTuning(Section):
    """Weights learn by their names."""

    type: Literal["pattern"]
    learn: tuple[Name, ...]
    """Patterns of a shell (*, ?, [abc]; * takes dots too) for the names of weights that learn."""
    freeze: tuple[Name, ...]
    """Patterns for those that do not learn all the same. What has no trained value yet, such as a new head, always learns."""


class LowRank(Section):
    """What all low-rank updates have."""

    rank: Count
    """Rank of the updates."""
    alpha: Positive
    """Updates are scaled by alpha / rank; with tuning=rslora by alpha / sqrt(rank)."""
    dropout: Fraction
    """Dropout before the updates."""
    target_modules: tuple[Name, ...] | None
    """Names of the layers to update; null: every linear layer but the head."""


class LoraTuning(LowRank):
    """Low-rank updates of the linear layers, and the head. Hu et al. 2022."""

    type: Literal["lora"]


class RsLoraTuning(LowRank):
    """LoRA with a scale that suits high ranks. Kalajdzievski 2023."""

    type: Literal["rslora"]


class DoraTuning(LowRank):
    """LoRA for the direction of each weight column, and its length learned apart. Liu et al. 2024."""

    type: Literal["dora"]


class PissaTuning(LowRank):
    """LoRA that starts from the largest singular values of the weights, and leaves the rest frozen. Meng et al. 2024."""

    type: Literal["pissa"]


class QloraTuning(LowRank):
    """LoRA on weights that are held in 4 bits; every linear layer but the head is. Dettmers et al. 2023."""

    type: Literal["qlora"]
    quant_type: Literal["nf4", "fp4"]
    """Kind of numbers of 4 bits: nf4 suits weights that are normally distributed."""
    double_quant: bool
    """Whether the scales are held in 8 bits as well; 0.4 bits less for each weight."""


class Ia3Tuning(Section):
    """Factors for keys, values and the inner activations of feed-forward layers, and the head. Liu et al. 2022."""

    type: Literal["ia3"]
    target_modules: tuple[Name, ...] | None
    """Names of the layers whose output is scaled, feedforward_modules included; null: as peft knows the architecture."""
    feedforward_modules: tuple[Name, ...] | None
    """Those of them whose input is scaled instead; null: as peft knows the architecture."""


class Virtual(Section):
    """What all tunings with virtual tokens have."""

    num_virtual_tokens: Count
    """Virtual tokens; tokenizer.max_length and they together have to fit the model's window."""


class PrefixTuning(Virtual):
    """Keys and values of virtual tokens in every layer, and the head. Li and Liang 2021."""

    type: Literal["prefix"]
    projection_size: Count | None
    """Hidden width of a small network that makes them, so that they learn more steadily; null: they are learned themselves."""


class PromptTuning(Virtual):
    """Word vectors of virtual tokens before each text, and the head. Lester et al. 2021."""

    type: Literal["prompt"]


TuningConfig = Annotated[
    FullTuning
    | HeadTuning
    | LayerwiseTuning
    | GradualTuning
    | PatternTuning
    | LoraTuning
    | RsLoraTuning
    | DoraTuning
    | PissaTuning
    | QloraTuning
    | Ia3Tuning
    | PrefixTuning
    | PromptTuning,
    Field(discriminator="type"),
]
LEARN_ALL = ("full", "layerwise", "gradual")  # tunings under which every weight learns, at least in the end
# Tunings that leave the model's own weights as they are.
ADAPTERS = ("lora", "rslora", "dora", "pissa", "qlora", "ia3", "prefix", "prompt")
