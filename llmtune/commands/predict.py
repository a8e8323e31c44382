"""`llmtune predict RUN [FILE]`: lines of a file or of standard input to one JSON object each."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llmtune import startup
from llmtune.commands import lines, sampling_keys
from llmtune.config.compose import compose
from llmtune.config.sections.generation import WRITING

if TYPE_CHECKING:
    from llmtune.cli import Options

_MASK = "\ue000"  # a character that no cleaner touches


def run(args: list[str], options: "Options") -> int:
    config = compose("predict", args, config_dir=options.config_dir).config
    sampling_keys.refuse_idle(args, temperature=config.temperature)
    with startup.importing():
        from llmtune.evaluation.predicting import predict
        from llmtune.training import precision
        from llmtune.training.restore import restore

    precision.set_up(config.hardware, exact=True)
    restored = restore(config.run, which=config.checkpoint)
    kind = restored.facts.get("task", {}).get("type")
    if kind in WRITING or (kind is None and restored.model.can_generate()):
        from llmtune.commands import writing

        return writing.predict(restored, config)
    task = restored.task()
    sampling_keys.refuse_for(task.type, args)
    wanted = "fp32" if config.hardware.precision == "auto" else config.hardware.precision
    compute = precision.choose(config.hardware, precision=wanted, is_transformer=True)
    model = restored.model.to(compute.device).eval()
    with lines.output(config.output, source=config.file) as out:
        for columns in lines.chunks(config.file, task.describe(), config.run, config.batch_size):
            texts = {name: values for name, values in columns.items() if name != "features"}
            cleaned = _cleaned(texts, restored.cleaner(), task)
            for number, row in enumerate(predict(model, task, columns | cleaned, compute=compute)):
                row |= {name: values[number] for name, values in texts.items()}  # as they were given
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    return 0


def _cleaned(texts: dict[str, Sequence], cleaner: Callable, task: Any) -> dict[str, list]:
    """Texts changed as those were that the model was trained on, but for the mask token of a masked language model."""
    import pyarrow as pa

    mask = task.text.tokenizer.mask_token if task.type == "masked_lm" else None
    cleaned = {}
    for name, values in texts.items():
        hidden = [value.replace(mask, _MASK) if mask and value else value for value in values]
        found = cleaner(pa.array(hidden, pa.string())).to_pylist()
        cleaned[name] = [value.replace(_MASK, mask) if mask and value else value for value in found]
    return cleaned
