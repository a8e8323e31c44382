"""What must hold between the tasks that read conversations, the data, and the other sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.data import LAYOUTS, PREFERENCE_LAYOUTS
from llmtune.config.sections.model import CHATS

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig

NEED_REFERENCE = ("dpo", "ipo")  # losses that compare with the model that training starts from
_KEYS_OF = {"label_smoothing": "dpo", "margin": "simpo"}  # of task=preference, and the loss that they are for


def rules(config: "StageConfig") -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    data, task, model = config.data, config.task, config.model
    if task.type not in CHATS:
        given = {"conversation": data.conversation != "auto", "conversation_columns": bool(data.conversation_columns)}
        given |= {"roles": bool(data.roles), "bad_conversations": data.bad_conversations != "refuse"}
        for key, is_set in given.items():
            yield is_set, f"data.{key}: is for task={' and task='.join(CHATS)}, not for task={task.type}: leave it out"
        return
    layouts = PREFERENCE_LAYOUTS if task.type == "preference" else LAYOUTS
    yield (
        data.conversation != "auto" and data.conversation not in layouts,
        f"data.conversation: {data.conversation} is for task=preference, where a row has two answers: use auto",
    )
    ways = {name: way for name, way in layouts.items() if data.conversation in ("auto", name)}
    known = list(dict.fromkeys(name for way in ways.values() for name in (*way.required, *way.optional)))
    unknown = [name for name in data.conversation_columns if name not in known]
    yield (
        bool(unknown),
        f"data.conversation_columns: data.conversation={data.conversation} has no column '{''.join(unknown[:1])}' for "
        f"task={task.type}; there are {', '.join(known)}",
    )
    yield (model.type in ("lstm", "mlp", "bert"), f"task: {task.type} needs model=gpt (or model=run)")
    yield (
        bool(config.augment),
        f"augment: task={task.type} learns answers word by word, which augmenters would change: use augment=none",
    )
    yield (
        bool(data.feature_columns) or data.text_pair_column is not None,
        f"data.{'feature_columns' if data.feature_columns else 'text_pair_column'}: task={task.type} reads conversations only",
    )
    is_pretrained = model.type == "run" or bool(getattr(model, "pretrained", None))
    yield (
        task.template == "own" and not is_pretrained,
        "task.template: own needs a tokenizer that has one, and this one is still to be trained: use chatml or plain",
    )
    if task.type != "preference":
        return
    yield (
        task.loss in NEED_REFERENCE and not is_pretrained,
        f"task.loss: {task.loss} compares with the model that training starts from, and model={model.type} starts with random "
        "weights: set model.pretrained, start from a run with model=run, or use orpo",
    )
    for key, loss in _KEYS_OF.items():
        yield (
            bool(getattr(task, key)) and task.loss != loss,
            f"task.{key}: is for task.loss={loss}, and has no effect on {task.loss}: leave it out",
        )
