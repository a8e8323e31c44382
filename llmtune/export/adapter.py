"""An adapter alone, as peft saves and loads it."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from llmtune.export import Bundle
from llmtune.export.huggingface import copy_companions
from llmtune.models.adapters import CONFIG, WEIGHTS
from llmtune.tuning import saved


def write(bundle: Bundle, directory: Path) -> None:
    """Write what `PeftModel.from_pretrained` puts on the weights that training began with: adapter, head, tokenizer.

    Raises:
        CheckpointError: the model was trained without an adapter, or on weights that do not lie anywhere.
    """
    opened, base = bundle.opened()
    config, tensors = saved.described(opened)
    config["base_model_name_or_path"] = str(base)
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    copy_companions(bundle, directory, also=("tuning",))
    (directory / "README.md").write_text(_card(bundle, opened, base, config["modules_to_save"]), encoding="utf-8")


def _card(bundle: Bundle, opened: Any, base: Path, beside: list[str] | None) -> str:
    lines = ["---", "library_name: peft", f"base_model: {base}", f"tags: [llmtune, {bundle.card.get('task', '')}]", "---", ""]
    lines += [f"- **{key}**: {value}" for key, value in bundle.card.items()]
    name = type(opened.get_base_model()).__name__
    labels = len(bundle.description["task"].get("label_names", ()))
    opening, how = bundle.description["tuning"], f", num_labels={labels}" if labels else ""
    begin = []
    if opening["type"] == "qlora":  # the adapter belongs to the rounded weights
        kind = f'bnb_4bit_quant_type="{opening["quant_type"]}", bnb_4bit_use_double_quant={opening["double_quant"]}'
        kind += f", llm_int8_skip_modules={beside}" if beside else ""
        begin, how = [f"four_bit = BitsAndBytesConfig(load_in_4bit=True, {kind})"], f"{how}, quantization_config=four_bit"
    lines += [
        "",
        "```python",
        "from peft import PeftModel",
        f"from transformers import {'BitsAndBytesConfig, ' if begin else ''}{name}",
        "",
        *begin,
        f'model = {name}.from_pretrained("{base}"{how})',
        'model = PeftModel.from_pretrained(model, "DIRECTORY")',
        "```",
    ]
    return "\n".join(lines) + "\n"
