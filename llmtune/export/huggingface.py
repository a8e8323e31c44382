"""A directory that `transformers` loads: safetensors, tokenizer, label names, model card."""

import json
import shutil
from pathlib import Path
from typing import Any

from llmtune.export import Bundle

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "chat_template.jinja", "added_tokens.json", "spiece.model", "tokenizer.model",
)  # fmt: skip


def write(bundle: Bundle, directory: Path) -> None:
    """Write the model with everything that it needs to be used elsewhere."""
    _complete_generation(bundle)
    bundle.model.save_pretrained(directory)
    copy_companions(bundle, directory)
    (directory / "README.md").write_text(_card(bundle), encoding="utf-8")


def copy_companions(bundle: Bundle, directory: Path, *, also: tuple[str, ...] = ()) -> None:
    """The tokenizer and llmtune.json, which go along with every form; `also` names more of its entries."""
    if bundle.tokenizer_dir is not None:
        for name in TOKENIZER_FILES:
            if (bundle.tokenizer_dir / name).is_file():
                shutil.copyfile(bundle.tokenizer_dir / name, directory / name)
    write_description(bundle, directory, also=also)


def write_description(bundle: Bundle, directory: Path, *, also: tuple[str, ...] = ()) -> None:
    """llmtune.json, without what the model was made from."""
    named = ("llmtune", "task", "tokenizer", "clean", *also)
    facts = {key: value for key, value in bundle.description.items() if key in named}
    (directory / "llmtune.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _complete_generation(bundle: Bundle) -> None:
    """Let `generate` know where a text begins and ends, and what fills up a batch."""
    if not bundle.model.can_generate():
        return
    known = {**bundle.model.config.to_dict(), "pad_token_id": bundle.description["task"].get("pad_token_id")}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(bundle.model.generation_config, name) is None:
            setattr(bundle.model.generation_config, name, known.get(name))


def _card(bundle: Bundle) -> str:
    name = type(bundle.model).__name__
    lines = ["---", "library_name: transformers", f"tags: [llmtune, {bundle.card.get('task', '')}]", "---", "", f"# {name}", ""]
    lines += [f"- **{key}**: {_shown(value)}" for key, value in bundle.card.items()]
    lines += ["", "## Use", ""]
    if bundle.model.config.model_type.startswith("llmtune_"):
        lines += ["The architecture is llmtune's own: `llmtune predict DIRECTORY FILE` loads it."]
    else:
        lines += [
            "```python",
            f"from transformers import AutoTokenizer, {name}",
            "",
            'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
            f'model = {name}.from_pretrained("DIRECTORY")',
            "```",
        ]
    if "label_bias" in bundle.description["task"]:
        rule = "The predicted class is the largest of `logits + label_bias`"
        if bundle.description["task"]["type"] == "multilabel":
            rule = "A label is predicted where `sigmoid(logits + label_bias)` is at least `threshold`"
        lines += ["", f"{rule}; see `task` in `llmtune.json`."]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items())
    return str(value)
