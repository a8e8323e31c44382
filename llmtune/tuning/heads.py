"""The part of a model that a task brings."""

from transformers import PreTrainedModel

from llmtune.errors import ConfigError
from llmtune.models.heads import TASKS, new_weights, task_of

HEADED = (*TASKS["classification"], *TASKS["tagging"])  # tasks that bring a head of their own


def head_parameters(model: PreTrainedModel) -> set[str]:
    """Names of the weights outside the base model.

    Raises:
        ConfigError: the head shares its weights with the embedding.
    """
    base = {id(p) for p in model.base_model.parameters()}
    head = {name for name, p in model.named_parameters() if id(p) not in base}
    if not head:
        raise ConfigError(["tuning: the head of this model shares its weights with the embedding: use tuning=full or lora"])
    return head


def open_beside_adapters(model: PreTrainedModel) -> set[str]:
    """Names of the weights that learn beside an adapter: the head of a task that has one of its own, and all that is new."""
    return set(new_weights(model)) | (head_parameters(model) if task_of(model) in HEADED else set())
