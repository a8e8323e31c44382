"""Train rows changed behind the text: their tokens, their vectors, or words that a masked language model puts in."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Name, Positive, Section

Share = Annotated[float, Field(gt=0, lt=1)]


class CutOff(Section):
    """Takes one span of tokens out of each row, another one in every epoch. Shen et al. 2020 (span cut-off)."""

    type: Literal["cutoff"]
    rate: Share
    """Length of the span as a share of the row's tokens; at least one token goes, and one stays."""
    replace: Literal["nothing", "mask"]
    """What comes in its place: nothing, or as many mask tokens (unknown tokens, where there is no mask token)."""


class MaskTokens(Section):
    """Hides tokens at random behind the mask token, or the unknown token where there is none."""

    type: Literal["mask"]
    rate: Share
    """Probability that a token is hidden; special tokens are spared, and one token always stays."""


class Mixup(Section):
    """Mixes the vectors of two rows that the output layer reads. Zhang et al. 2018; Guo et al. 2019 (senMixup)."""

    type: Literal["mixup"]
    alpha: Positive
    """Shares of the two rows are drawn from Beta(alpha, alpha): near 0 or 1 if it is small, evenly at 1."""


class WordMixup(Section):
    """Mixes the word vectors of two rows, place by place. Guo et al. 2019 (wordMixup)."""

    type: Literal["word_mixup"]
    alpha: Positive
    """Shares of the two rows are drawn from Beta(alpha, alpha): near 0 or 1 if it is small, evenly at 1."""


class Adversarial(Section):
    """Learns each row a second time, its word vectors moved to where the loss grows fastest. Miyato et al. 2017 (FGM)."""

    type: Literal["fgm"]
    epsilon: Positive
    """Length of the step, in units of the root mean square of the row's word vectors."""
    weight: Positive
    """Weight of the second loss beside the first."""


class Contextual(Section):
    """Words that a masked language model would expect in their place. Kobayashi 2018; Kumar et al. 2020.

    A few variants of each train row are made once, before training, and kept in the cache; each epoch draws one of them, or
    the row as it is.
    """

    type: Literal["contextual"]
    model: Name
    """Masked language model: a run of task=masked_lm, a directory, package:NAME/PATH or hub name."""
    num_variants: Annotated[int, Field(ge=1, le=100)]
    """Variants of each row."""
    rate: Share
    """Share of a row's words that are put anew; at least one."""
    top_k: Count
    """Drawn from that many words, the likeliest, by their probability; the word that stood there is none of them."""
    prepend_label: bool
    """Whether the model reads the name of the row's class before the text, so that the words fit it. Kumar et al. 2020."""


TokenAugment = CutOff | MaskTokens
VectorAugment = Mixup | WordMixup | Adversarial
ModelAugment = TokenAugment | VectorAugment | Contextual
