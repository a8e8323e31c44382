"""Models that write text: made ready, and let loose on the rows of `predict`."""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence

import pyarrow as pa

from llmtune import console
from llmtune.commands import lines
from llmtune.config.schema import PredictConfig
from llmtune.config.sections.generation import Sampling
from llmtune.config.sections.training import HardwareConfig
from llmtune.data import forms
from llmtune.generation.prompts import Prompts, prompts_for
from llmtune.generation.row import Answer
from llmtune.generation.writer import Writer
from llmtune.training import precision
from llmtune.training.precision import DTYPES, Compute
from llmtune.training.restore import Restored

BATCHES_AT_ONCE = 8  # whose rows are read together, so that those of similar length can share one


def writer_of(
    restored: Restored, prompts: Prompts, *, hardware: HardwareConfig, how: Sampling, one_by_one: bool = False
) -> tuple[Writer, Compute]:
    """A writer for a restored model, whose weights are changed for it.

    A plain text that outgrows the window goes on without its beginning; a conversation would lose what it is about, and ends.

    Args:
        restored: a causal model.
        prompts: for it.
        hardware: device and precision; 'auto' is fp32: in bf16 a text may depend on the rows beside it, and single tokens come
            no faster on a CPU. On a GPU it is bf16 for texts that are written one by one.
        how: sampling.
        one_by_one: whether no text is ever written beside another.
    """
    compute = precision.choose(hardware, precision=hardware.precision, is_transformer=True)
    if hardware.precision == "auto" and not (one_by_one and compute.device.type == "cuda"):
        compute = precision.choose(hardware, precision="fp32", is_transformer=True)
    model = restored.model.to(compute.device, DTYPES[compute.precision]).eval()
    return Writer(model, prompts, how, slides=prompts.chat is None), compute


def predict(restored: Restored, config: PredictConfig) -> int:
    """Write behind each row of `predict`, to JSON lines; or, where somebody sits before it, to the terminal word by word."""
    prompts = prompts_for(restored)
    writer, _ = writer_of(restored, prompts, hardware=config.hardware, how=config.sampling())
    name = "continuation" if prompts.chat is None else "answer"
    is_read_along = config.file == config.output == "-" and sys.stdout.isatty()
    size = 1 if is_read_along else config.batch_size * BATCHES_AT_ONCE
    description = {"type": "causal_lm" if prompts.chat is None else "instruction"}
    number, num_full = 0, 0
    progress = contextlib.nullcontext() if is_read_along else console.progress("writing", total=None, unit="texts")
    with lines.output(config.output, source=config.file) as out, progress as advance:
        for columns in lines.chunks(config.file, description, config.run, size):
            made = _prompts(columns, prompts, restored.cleaner())
            keys = range(number, number + len(made))
            if is_read_along:
                answers = [_shown(writer, columns["text"][0], made[0], key=number)]
            else:
                answers = writer.answers(made, keys=keys, batch_size=config.batch_size, advance=advance)
                for i, answer in enumerate(answers):
                    given = {column: values[i] for column, values in columns.items()}
                    row = {**given, name: answer.text, "finish_reason": answer.finish_reason}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                out.flush()
            number += len(made)
            num_full += sum(answer.finish_reason == "window" for answer in answers)
    _tell(writer.num_slid, num_full, prompts.window)
    return 0


def _prompts(columns: dict[str, Sequence], prompts: Prompts, cleaner: Callable[[pa.Array], pa.Array]) -> list[list[int]]:
    """What the model reads of each row, cleaned as what it was trained on."""
    if "messages" in columns:
        cleaned = forms.with_contents(pa.array(columns["messages"], forms.MESSAGES), cleaner)
        return [prompts.of_messages(messages) for messages in cleaned.to_pylist()]
    texts = cleaner(pa.array(columns["text"], pa.string())).to_pylist()
    if prompts.chat is None:
        return [prompts.of_text(text) for text in texts]
    return [prompts.of_messages([{"role": "user", "content": text}]) for text in texts]


def _shown(writer: Writer, text: str, prompt: list[int], *, key: int) -> Answer:
    if not sys.stdin.isatty():
        print(console.printable(text))
    answer = writer.answer(prompt, key=key, show=lambda piece: print(console.printable(piece), end="", flush=True))
    print(flush=True)
    return answer


def _tell(num_slid: int, num_full: int, window: int | None) -> None:
    for number, told in ((num_slid, "the beginning was left out"), (num_full, "it ends there, finish_reason window")):
        if number:
            console.notice(f"{number:,} {'text' if number == 1 else 'texts'} beyond the window of {window:,} tokens: {told}")
