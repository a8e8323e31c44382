"""What a task and its tokenizer ask of a model."""

from dataclasses import dataclass
from typing import Literal

TaskType = Literal["classification", "regression", "multilabel", "tagging", "causal_lm", "masked_lm"]
NAMING = ("classification", "multilabel", "tagging")  # tasks whose answers have names


@dataclass(frozen=True)
class ModelSpec:
    """Everything that a model needs to know of its task.

    Attributes:
        task: decides the head.
        label_names: names of classes, labels or tags in the order of their ids; empty for tasks without them.
        vocab_size: entries of the tokenizer; 0 for numeric rows.
        pad_token_id, bos_token_id, eos_token_id: of the tokenizer, None where it has no such token.
        end_ids: tokens of which any ends what a causal model generates; empty: eos_token_id does.
        max_length: most tokens of one input; 0 for numeric rows.
        num_features: numeric columns of a row; 0 for texts.
        feature_mean, feature_std: of each numeric column over the train rows.
        target_mean, target_std: of the regression target over the train rows.
    """

    task: TaskType
    label_names: tuple[str, ...] = ()
    vocab_size: int = 0
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    end_ids: tuple[int, ...] = ()
    max_length: int = 0
    num_features: int = 0
    feature_mean: tuple[float, ...] = ()
    feature_std: tuple[float, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0

    @property
    def num_outputs(self) -> int:
        """Width of a head that answers for each row or word: names, or 1 for a number."""
        return len(self.label_names) if self.task in NAMING else 1

    @property
    def labels(self) -> dict[str, dict]:
        """`id2label` and `label2id` of a transformers config; a number has the name 'value'."""
        names = self.label_names if self.task in NAMING else ("value",)
        return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
