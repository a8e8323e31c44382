"""How conversations are written for a model: templates for tokenizers that bring none. Jinja, rendered in a sandbox.

A template is stored with the tokenizer (`chat_template`), so that checkpoints, exports and other tools write as training did.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from tokenizers import AddedToken
from transformers.utils.chat_template_utils import render_jinja_template

from llmtune.data.forms import CONVERSATIONS
from llmtune.errors import ConfigError, ModelError

_ROWS = 1_000  # conversations that are written at once
_START = "{%- if bos_token and bos_token != eos_token -%}{{ bos_token }}{%- endif -%}"


@dataclass(frozen=True)
class Template:
    """A way to write conversations.

    Attributes:
        source: Jinja, over `messages`, `add_generation_prompt`, `bos_token` and `eos_token`.
        special_tokens: that the tokenizer has to know as such.
    """

    source: str
    special_tokens: tuple[str, ...] = ()


TEMPLATES: dict[str, Template] = {
    "chatml": Template(
        "{%- for message in messages -%}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": Template(
        _START + "{%- for message in messages -%}"
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "alpaca": Template(
        _START + "{%- if messages[0]['role'] == 'system' -%}{{ messages[0]['content'] | trim + '\\n\\n' }}{%- else -%}"
        "{{ 'Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\\n\\n' }}{%- endif -%}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}{{ '### Instruction:\\n' + message['content'] | trim + '\\n\\n' }}"
        "{%- elif message['role'] == 'assistant' -%}"
        "{{ '### Response:\\n' + message['content'] | trim + eos_token + '\\n\\n' }}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '### Response:\\n' }}{%- endif -%}",
    ),
    "plain": Template(
        _START + "{%- for message in messages -%}"
        "{%- if message['role'] == 'system' -%}{{ message['content'] | trim + '\\n' }}"
        "{%- elif message['role'] == 'user' -%}{{ 'User: ' + message['content'] | trim + '\\n' }}"
        "{%- else -%}{{ 'Assistant: ' + message['content'] | trim + eos_token + '\\n' }}{%- endif -%}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}",
    ),
}


def new_tokens(wanted: str) -> tuple[str, ...]:
    """The special tokens that a tokenizer which is still to be trained gets for a template."""
    return TEMPLATES[_of_new(wanted)].special_tokens


def add_tokens(tokenizer: Any, wanted: str) -> None:
    """Give a newly trained tokenizer the special tokens of its template."""
    tokens = [AddedToken(token, special=True, normalized=False) for token in new_tokens(wanted)]
    tokenizer.add_tokens(tokens, special_tokens=True)


def written(wanted: str, table: pa.Table) -> "Conversations":
    """The conversations of a table as texts for a tokenizer to be trained on, without special tokens."""
    return Conversations(TEMPLATES[_of_new(wanted)], table)


class Conversations:
    """Texts of conversations, as often as they are asked for; few of them are in memory at a time."""

    def __init__(self, template: Template, table: pa.Table):
        columns = [name for name in CONVERSATIONS if name in table.column_names]
        self._template, self._table = template, table.select(columns)

    def __iter__(self) -> Iterator[str]:
        special = re.compile("|".join(map(re.escape, self._template.special_tokens)) or r"(?!)")
        for batch in self._table.to_batches(max_chunksize=_ROWS):
            how = {"chat_template": self._template.source, "eos_token": "", "bos_token": ""}
            for column in batch.columns:
                texts, _ = render_jinja_template(column.to_pylist(), **how)
                yield from (special.sub(" ", text) for text in texts)


def install(tokenizer: Any, wanted: str) -> str | None:
    """Give a tokenizer the template that conversations are written with; returns its name, None for its own.

    'auto' is the tokenizer's own, else chatml where its tokens are there, else plain.

    Raises:
        ModelError: there is no own template.
        ConfigError: the tokenizer lacks special tokens of the template.
    """
    if tokenizer.chat_template is not None and wanted in ("auto", "own"):
        return None
    if wanted == "own":
        raise ModelError("the model's tokenizer has no chat template", remedy=f"set task.template={' or '.join(TEMPLATES)}")
    vocabulary = tokenizer.get_vocab()
    lacking = {name: [t for t in template.special_tokens if t not in vocabulary] for name, template in TEMPLATES.items()}
    name = wanted if wanted != "auto" else "plain" if lacking["chatml"] else "chatml"
    if lacking[name]:
        without = " or ".join(other for other, tokens in lacking.items() if not tokens)
        problem = f"{name} needs {', '.join(lacking[name])}, which the model's tokenizer lacks: use {without}"
        raise ConfigError([f"task.template: {problem}"])
    tokenizer.chat_template = TEMPLATES[name].source
    return name


def _of_new(wanted: str) -> str:
    return "chatml" if wanted in ("auto", "own") else wanted
