"""Which class of an architecture serves a task, and how a trained body gets another head."""

import copy

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from llmtune.errors import ModelError
from llmtune.models import first_token
from llmtune.models.lstm import LstmConfig, LstmForSequenceClassification, LstmForTokenClassification
from llmtune.models.mlp import MlpConfig, MlpForRows
from llmtune.models.spec import NAMING, ModelSpec

# Our own architectures by their model_type, and their classes by kind of head; all others are those of transformers.
OWN: dict[str, tuple[type[PretrainedConfig], dict[str, type[PreTrainedModel]]]] = {
    LstmConfig.model_type: (
        LstmConfig,
        {"classification": LstmForSequenceClassification, "tagging": LstmForTokenClassification},
    ),
    MlpConfig.model_type: (MlpConfig, {"classification": MlpForRows}),
}

POOLER = "pooler"  # the layer of a body that only heads for whole texts read, for which some models lack weights
OTHER = "use a model of another architecture"

# What transformers calls its tables of the classes that have a task's head.
MAPPINGS = {
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "tagging": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "masked_lm": "MODEL_FOR_MASKED_LM_MAPPING",
    "causal_lm": "MODEL_FOR_CAUSAL_LM_MAPPING",
}
TASKS = {
    "classification": ("classification", "regression", "multilabel"),
    "tagging": ("tagging",),
    "masked_lm": ("masked_lm",),
    "causal_lm": ("causal_lm",),
}
KINDS = {task: kind for kind, tasks in TASKS.items() for task in tasks}
# What transformers calls the tasks that share a class.
PROBLEM_TYPES = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multilabel": "multi_label_classification",
}


def class_for(config: PretrainedConfig, task: str) -> type[PreTrainedModel]:
    """The class of an architecture that has the head for a task.

    Raises:
        ModelError: the architecture has no such head, or reads in both directions and cannot predict the next token.
    """
    found = _with_head(config, KINDS[task])
    where = config.name_or_path or None
    if found is None:
        raise ModelError(f"the architecture {config.model_type} cannot do task={task}", where=where, remedy=OTHER)
    if task == "causal_lm" and _reads_both_ways(config):
        raise ModelError(
            f"the architecture {config.model_type} reads in both directions and would see the token that it is to predict",
            where=where,
            remedy="use task=masked_lm, or a causal model such as GPT-2",
        )
    return found


def class_named(config: PretrainedConfig, name: str | None, *, task: str | None = None) -> type[PreTrainedModel]:
    """The class that a config names as its architecture; its body alone where that has none of our tasks' heads.

    The body is also what is left of a model whose head is not that of `task`: it may have parts that the named class
    leaves out, such as BERT's pooler.

    Raises:
        ModelError: the architecture has no head for any task.
    """
    if config.model_type in OWN:
        own = list(OWN[config.model_type][1].values())
        return next((cls for cls in own if cls.__name__ == name), own[0])
    import transformers

    classes = {kind: cls for kind in MAPPINGS if (cls := _with_head(config, kind)) is not None}
    if not classes:
        message = f"the architecture {config.model_type} cannot do any task of llmtune"
        raise ModelError(message, where=config.name_or_path or None, remedy=OTHER)
    named = [cls for kind, cls in classes.items() if cls.__name__ == name and task in (None, *TASKS[kind])]
    if named or type(config) not in transformers.MODEL_MAPPING:
        return named[0] if named else next(iter(classes.values()))
    body = transformers.MODEL_MAPPING[type(config)]
    return body[0] if isinstance(body, tuple) else body


def task_of(model: PreTrainedModel) -> str | None:
    """The task whose head a model has; None for a body alone."""
    for kind in MAPPINGS:
        if type(model) is _with_head(model.config, kind):
            return _task_of_rows(model.config) if kind == "classification" else kind
    return None


def new_weights(model: PreTrainedModel) -> frozenset[str]:
    """Names of the weights that `adapt` drew, which no one has trained."""
    return getattr(model, "_new_weights", frozenset())


def adapt(model: PreTrainedModel, spec: ModelSpec) -> PreTrainedModel:
    """The same body for a task: the head stays if task and label names agree, else it is new (see `new_weights`).

    New weights come from torch's global generator.

    Raises:
        ModelError: the model cannot do the task, or does not fit its tokenizer or its columns.
    """
    _check_fit(model, spec)
    if task_of(model) == spec.task and _answers_alike(model.config, spec):
        _set_padding(model.config, spec)
        first_token.install(model)
        return model
    cls = class_for(model.config, spec.task)
    config = copy.deepcopy(model.config)
    set_labels(config, spec)
    if config.model_type == MlpConfig.model_type:
        scales = config.standardize and spec.task == "regression"
        config.target_mean, config.target_std = (spec.target_mean, spec.target_std) if scales else (0.0, 1.0)
    with torch.device("meta"), no_init_weights():
        fresh = cls(config)
    _take_body(fresh, model.base_model)
    new = [name for name, p in fresh.named_parameters() if p.is_meta]
    _materialise(fresh)
    fresh.tie_weights()
    untied = dict(fresh.named_parameters())
    fresh._new_weights = frozenset(name for name in new if name in untied)
    start_at_mean(fresh, spec)
    first_token.install(fresh)
    return fresh


def set_labels(config: PretrainedConfig, spec: ModelSpec) -> None:
    """Write the task's labels into a config, and the padding token."""
    if spec.task in (*NAMING, "regression"):
        config.id2label, config.label2id = spec.labels["id2label"], spec.labels["label2id"]
        config.problem_type = PROBLEM_TYPES.get(spec.task)
    _set_padding(config, spec)


def start_at_mean(model: PreTrainedModel, spec: ModelSpec) -> None:
    """Let a new regression head answer the mean of the targets at first."""
    if spec.task == "regression" and model.config.model_type != MlpConfig.model_type:  # which scales its answers itself
        body = set(model.base_model.modules())
        linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module not in body]
        if linear and linear[-1].out_features == 1 and linear[-1].bias is not None:
            nn.init.constant_(linear[-1].bias, spec.target_mean)


def _with_head(config: PretrainedConfig, kind: str) -> type[PreTrainedModel] | None:
    if config.model_type in OWN:
        return OWN[config.model_type][1].get(kind)
    import transformers

    return getattr(transformers, MAPPINGS[kind]).get(type(config), None)


def _reads_both_ways(config: PretrainedConfig) -> bool:
    return _with_head(config, "masked_lm") is not None and not getattr(config, "is_decoder", False)


def _task_of_rows(config: PretrainedConfig) -> str:
    """As transformers decides it, which takes a single output for a number if the config does not say."""
    if config.problem_type is None:
        return "regression" if config.num_labels == 1 else "classification"
    return next(task for task, problem in PROBLEM_TYPES.items() if problem == config.problem_type)


def _answers_alike(config: PretrainedConfig, spec: ModelSpec) -> bool:
    if spec.task not in (*NAMING, "regression"):
        return True
    names = tuple(config.id2label.get(i) for i in range(config.num_labels))
    return names == spec.label_names if spec.task in NAMING else len(names) == 1


def _set_padding(config: PretrainedConfig, spec: ModelSpec) -> None:
    """Causal models find the end of a text by the padding token; encoders may count positions from theirs (RoBERTa)."""
    has_own = getattr(config, "pad_token_id", None) is not None
    if spec.pad_token_id is not None and not (has_own and _reads_both_ways(config)):
        config.pad_token_id = spec.pad_token_id


def _check_fit(model: PreTrainedModel, spec: ModelSpec) -> None:
    where = model.name_or_path or None
    if spec.num_features:
        num_features = getattr(model.config, "num_features", None)
        if num_features != spec.num_features:
            wanted = f"{num_features} numeric columns" if num_features else "text"
            message = f"the model reads {wanted}, the data has {spec.num_features} numeric columns"
            raise ModelError(message, where=where, remedy="name as many data.feature_columns, or use another model")
        return
    if model.config.model_type == MlpConfig.model_type:
        raise ModelError("the model reads numeric columns, the data has text", where=where, remedy="name data.feature_columns")
    num_embeddings = model.get_input_embeddings().num_embeddings
    if spec.vocab_size > num_embeddings:
        raise ModelError(
            f"the tokenizer has {spec.vocab_size:,} entries, the model's embedding {num_embeddings:,}",
            where=where,
            remedy="use the tokenizer that the model was trained with",
        )


def _take_body(fresh: PreTrainedModel, body: nn.Module) -> None:
    """Move a body's modules into a model without weights; one that only the body has, such as a pooler, is left behind.

    Raises:
        ModelError: a module of the new body other than a pooler is not in the old one.
    """
    if fresh.base_model_prefix not in dict(fresh.named_children()):
        raise ModelError(f"the body of {type(fresh).__name__} cannot be exchanged", remedy=OTHER)
    place = fresh.base_model
    trained = dict(body.named_children())
    needed = [name for name, child in place.named_children() if name != POOLER and list(child.parameters())]
    if lacking := [name for name in needed if name not in trained]:
        message = f"the weights hold a part of {type(fresh).__name__} only: there is no {', '.join(lacking)}"
        raise ModelError(message, where=fresh.name_or_path or None, remedy=OTHER)
    for name, _ in list(place.named_children()):
        if name in trained:
            setattr(place, name, trained[name])
    for name, parameter in body.named_parameters(recurse=False):
        setattr(place, name, parameter)
    for name, buffer in body.named_buffers(recurse=False):
        place.register_buffer(name, buffer, persistent=name not in place._non_persistent_buffers_set)


def _materialise(model: PreTrainedModel) -> None:
    """Give every module that has no weights yet its initial ones."""
    for module in model.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            module.to_empty(device="cpu", recurse=False)
            model._init_weights(module)
