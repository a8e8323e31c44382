"""How conversations are written for a model: templates for tokenizers that bring none. Jinja, rendered in a sandbox.

A template is stored with the tokenizer (`chat_template`), so that checkpoints, exports and other tools write as training did.
"""

from dataclasses import dataclass
from typing import Any

from llmtune.errors import ConfigError, ModelError

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


def choose(wanted: str, *, own: str | None, vocabulary: set[str] | None) -> str | None:
    """The name of the template that conversations are written with; None: the tokenizer's own.

    Args:
        wanted: a name, 'own', or 'auto': the tokenizer's own, else chatml where its tokens are there, else plain.
        own: template of the tokenizer.
        vocabulary: entries of the tokenizer; None: it is still to be trained, and gets the special tokens.

    Raises:
        ModelError: there is no own template.
        ConfigError: the tokenizer lacks special tokens of the template.
    """
    if own is not None and wanted in ("auto", "own"):
        return None
    if wanted == "own":
        raise ModelError("the model's tokenizer has no chat template", remedy=f"set task.template={' or '.join(TEMPLATES)}")
    knows = {name: vocabulary is None or vocabulary.issuperset(template.special_tokens) for name, template in TEMPLATES.items()}
    if wanted == "auto":
        return "chatml" if knows["chatml"] else "plain"
    if not knows[wanted]:
        lacking = ", ".join(token for token in TEMPLATES[wanted].special_tokens if token not in vocabulary)
        without = " or ".join(name for name, template in TEMPLATES.items() if not template.special_tokens)
        raise ConfigError([f"task.template: {wanted} needs {lacking}, which the model's tokenizer lacks: use {without}"])
    return wanted


def install(tokenizer: Any, wanted: str) -> str | None:
    """Give a tokenizer the template that conversations are written with; returns its name, None for its own.

    Raises:
        ModelError, ConfigError: see `choose`.
    """
    name = choose(wanted, own=tokenizer.chat_template, vocabulary=set(tokenizer.get_vocab()))
    if name is not None:
        tokenizer.chat_template = TEMPLATES[name].source
    return name
