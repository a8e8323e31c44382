"""What must hold between task=instruction, its conversations, and the other sections."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmtune.config.sections.data import LAYOUTS

if TYPE_CHECKING:
    from llmtune.config.schema import StageConfig


def rules(config: "StageConfig") -> Iterator[tuple[bool, str]]:
    """Pairs of whether something is wrong, and what; see `schema.contradictions`."""
    data, task, model = config.data, config.task, config.model
    is_pretrained = model.type == "run" or bool(getattr(model, "pretrained", None))
    ways = LAYOUTS if data.conversation == "auto" else {data.conversation: LAYOUTS[data.conversation]}
    known = list(dict.fromkeys(name for way in ways.values() for name in (*way.required, *way.optional)))
    unknown = [name for name in data.conversation_columns if name not in known]
    yield (
        bool(unknown),
        f"data.conversation_columns: data.conversation={data.conversation} has no column '{''.join(unknown[:1])}'; there are "
        f"{', '.join(known)}",
    )
    if task.type != "instruction":
        given = {"conversation": data.conversation != "auto", "conversation_columns": bool(data.conversation_columns)}
        given |= {"roles": bool(data.roles), "bad_conversations": data.bad_conversations != "refuse"}
        for key, is_set in given.items():
            yield is_set, f"data.{key}: is for task=instruction, and has no effect on task={task.type}: leave it out"
        return
    yield (model.type in ("lstm", "mlp", "bert"), "task: instruction needs model=gpt (or model=run)")
    yield (
        bool(config.augment),
        "augment: task=instruction learns answers word by word, which augmenters would change: use augment=none",
    )
    yield (
        bool(data.feature_columns) or data.text_pair_column is not None,
        f"data.{'feature_columns' if data.feature_columns else 'text_pair_column'}: task=instruction reads conversations only",
    )
    yield (
        task.template == "own" and not is_pretrained,
        "task.template: own needs a tokenizer that has one, and this one is still to be trained: use chatml or plain",
    )
