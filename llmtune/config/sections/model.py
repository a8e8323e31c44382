"""What is to be learned, and by which model."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Name, Positive, Section


class ClassificationTask(Section):
    """One class out of several for each text or pair of texts."""

    type: Literal["classification"]
    label_names: tuple[Name, ...] | None
    """Class names in the order of their ids; null: the sorted labels of the train rows."""


class RegressionTask(Section):
    """One number for each text or each row of numbers; mean squared error."""

    type: Literal["regression"]


class MultilabelTask(Section):
    """Any number of labels for each text or pair of texts; binary cross-entropy."""

    type: Literal["multilabel"]
    label_names: tuple[Name, ...] | None
    """Names of the labels in the order of their ids; null: data.label_columns, or the sorted labels of the train rows."""
    threshold: Annotated[float, Field(gt=0, lt=1)]
    """Probability from which on a label is predicted."""


class TaggingTask(Section):
    """One tag for each word, such as the B-, I- and O of named entities."""

    type: Literal["tagging"]
    label_names: tuple[Name, ...] | None
    """Tags in the order of their ids; null: those of the train rows."""


class CausalLmTask(Section):
    """Predict the next token. Rows are joined, each ended by the end-of-text token, and cut into blocks of max_length."""

    type: Literal["causal_lm"]
    isolate_documents: bool
    """Whether the rows of a block are read as if each stood alone: no attention, no position and no target across them."""


class MaskedLmTask(Section):
    """Predict hidden tokens, drawn anew in every epoch. Devlin et al. 2019."""

    type: Literal["masked_lm"]
    mask_probability: Annotated[float, Field(gt=0, lt=1)]
    """Share of the tokens to predict: of these 80 % are masked, 10 % replaced, 10 % kept."""


class InstructionTask(Section):
    """Answer as the assistant of a conversation does: a causal model whose loss is on the answers' tokens alone."""

    type: Literal["instruction"]
    template: Literal["auto", "own", "chatml", "llama3", "alpaca", "plain"]
    """How conversations are written for the model; auto: the tokenizer's own template, else chatml or plain."""
    answers: Literal["all", "last"]
    """Which answers of a conversation are learned."""
    system_prompt: Name | None
    """System message of conversations that have none; null: they stay without."""
    too_long: Literal["cut", "drop"]
    """What becomes of conversations longer than tokenizer.max_length; those of whose answers nothing is left are dropped."""
    packing: bool
    """Whether short train conversations share a row, each read as if it stood alone; less padding."""


class PreferenceTask(Section):
    """Prefer the better of two answers to the same conversation: DPO, IPO, ORPO or SimPO."""

    type: Literal["preference"]
    loss: Literal["dpo", "ipo", "orpo", "simpo"]
    """dpo (Rafailov et al. 2023), ipo (Azar et al. 2024), orpo (Hong et al. 2024) or simpo (Meng et al. 2024)."""
    beta: Positive | None
    """dpo, ipo: how close the model stays to its start; orpo: weight of the odds ratio; simpo: scale; null: 0.1, simpo 2."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    """For dpo: share of the pairs that are presumed to be the wrong way round (Mitchell 2023, conservative DPO)."""
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    """For simpo: by how much the reward of the better answer is to exceed the other's; null: half of beta."""
    template: Literal["auto", "own", "chatml", "llama3", "alpaca", "plain"]
    """How conversations are written for the model; auto: the tokenizer's own template, else chatml or plain."""
    system_prompt: Name | None
    """System message of conversations that have none; null: they stay without."""
    too_long: Literal["cut_prompt", "cut_answer", "drop"]
    """Pairs longer than tokenizer.max_length lose the beginning of the prompt, or the end of an answer, or are left out."""


TaskConfig = Annotated[
    ClassificationTask
    | RegressionTask
    | MultilabelTask
    | TaggingTask
    | CausalLmTask
    | MaskedLmTask
    | InstructionTask
    | PreferenceTask,
    Field(discriminator="type"),
]
CHATS = ("instruction", "preference")  # tasks that read conversations


class LstmModel(Section):
    """Embedding, LSTM layers, pooling, linear head; from scratch. Hochreiter and Schmidhuber 1997."""

    type: Literal["lstm"]
    embedding_size: Count
    """Width of the word vectors."""
    hidden_size: Count
    """Width of the hidden state, each direction."""
    num_layers: Count
    """Stacked LSTM layers."""
    bidirectional: bool
    """Whether the text is also read backwards."""
    pooling: Literal["mean", "max", "last"]
    """How the hidden states of a text become one vector; task=tagging keeps them all."""
    dropout: Fraction
    """Dropout on word vectors, between layers and before the head."""
    recurrent_dropout: Fraction
    """Share of the recurrent weights dropped in each step. Merity et al. 2018 (weight-dropped LSTM)."""
    max_ngram: Annotated[int, Field(ge=1, le=5)]
    """Longest run of neighbouring tokens that has a vector as well, as in fastText; 1: tokens alone. Joulin et al. 2017."""
    ngram_buckets: Annotated[int, Field(ge=1, le=10_000_000)]
    """Vectors of n-grams; if there are more n-grams, several share one."""


class MlpModel(Section):
    """Fully connected layers over numeric columns; no hidden layer makes it linear regression."""

    type: Literal["mlp"]
    hidden_sizes: tuple[Count, ...]
    """Widths of the hidden layers; [] for a straight line."""
    activation: Literal["relu", "tanh", "sigmoid", "gelu", "silu", "leaky_relu", "elu"]
    """Non-linearity between the layers."""
    dropout: Fraction
    """Dropout after each hidden layer."""
    standardize: bool
    """Whether inputs and target are brought to mean 0 and variance 1 inside the model."""


class TransformerModel(Section):
    """What every transformers architecture has: weights to start from, or a size from scratch."""

    pretrained: Name | None
    """Directory, GGUF file, package:NAME/PATH or hub name of the weights to start from; null: from scratch."""
    revision: Name | None
    """Branch, tag or commit of a hub name."""
    size: Literal["tiny", "mini", "small", "medium", "base"]
    """Size from scratch: 2x128, 4x256, 4x512, 8x512, 12x768 (layers x width). Turc et al. 2019."""
    num_layers: Count | None
    """Layers, instead of the size's."""
    num_heads: Count | None
    """Attention heads, instead of the size's."""
    hidden_size: Count | None
    """Width, instead of the size's."""
    dropout: Fraction | None
    """Dropout everywhere in the model; null: as the weights were trained, 0.1 from scratch."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    """Attention kernel; auto: sdpa."""


class BertModel(TransformerModel):
    """An encoder: BERT from scratch, or any encoder's weights."""

    type: Literal["bert"]


class GptModel(TransformerModel):
    """A causal model: GPT-2 from scratch, or any causal model's weights."""

    type: Literal["gpt"]


class RunModel(Section):
    """The result of an earlier run, or a model directory, with its tokenizer and, if the labels agree, its head."""

    type: Literal["run"]
    path: Name
    """A run directory, one of its checkpoints, a model directory, or an adapter directory of peft's."""
    base: Name | None
    """Weights that an adapter of peft's belongs to, as model.pretrained; null: those that its adapter_config.json names."""


ModelConfig = Annotated[LstmModel | MlpModel | BertModel | GptModel | RunModel, Field(discriminator="type")]
