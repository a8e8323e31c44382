"""Whether task=instruction has the loss and the gradients of TRL's SFTTrainer: python scripts/bench/peers/parity_trl.py CACHE

A tiny random Llama, float32, one batch of conversations, written three times: by prompts and completions, where TRL learns
the completion; by turns with a template that marks the answers ({% generation %}), where both learn every answer; and the same
packed, each conversation read as if it stood alone. CACHE keeps TRL's environment. Ends with 1 where a loss or gradient differs
by more than TOLERANCE: the loss relatively, the gradients by the norm of their difference over their norm.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import common
from lora_llama import TRL, WEIGHTS

TOLERANCE = 1e-5
MAX_LENGTH = 256
MARKED = (
    "{%- for message in messages -%}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ message['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{%- else -%}{{ message['content'] + '<|eot_id|>' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}"
)
QUESTIONS = [
    ("What is the plural of 'mouse'?", "mice"),
    ("Translate into German: good day", "Guten Tag, schöner Tag! 😀"),
    ("Sort: 5, 3, 9", "3, 5, 9"),
    ("Name a colour of the sky, and tell why it has that colour.", "Blue: the air scatters short waves most.\nAt dusk, red."),
]


def conversations(*, in_turns: bool) -> list[list[dict[str, str]]]:
    pairs = [[{"role": "user", "content": asked}, {"role": "assistant", "content": answer}] for asked, answer in QUESTIONS]
    if not in_turns:
        return pairs
    system = [{"role": "system", "content": "Be brief."}]
    return [[*system, *pairs[0], *pairs[1]], pairs[2], [*pairs[3], *pairs[0], *pairs[2]], pairs[1]]


def made(folder: str) -> common.Result:
    """To be called: a tiny random Llama with a tokenizer, once for each template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmtune.data import tokenizer as tokenizers
    from llmtune.tasks import chat_templates

    texts = [text for pair in QUESTIONS for text in pair]
    tokenizer = tokenizers.train("bpe", family="gpt", vocab_size=400, min_frequency=1, lowercase=False, texts=texts)
    chat_templates.add_tokens(tokenizer, "llama3")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for name, template in {"pairs": chat_templates.TEMPLATES["llama3"].source, "turns": MARKED}.items():
        tokenizer.chat_template = template
        model.save_pretrained(Path(folder) / name)
        tokenizer.save_pretrained(Path(folder) / name)
    return {}


def ours(model: str, out: str, in_turns: bool, packing: bool) -> common.Result:
    """To be called: loss and number of learned tokens of llmtune; the gradients are saved."""
    import numpy as np
    import pyarrow as pa
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from llmtune.data.forms import MESSAGES
    from llmtune.tasks.base import Draw
    from llmtune.tasks.instruction import InstructionTask
    from llmtune.tasks.text import TextInputs

    net = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    text = TextInputs(Path(model), max_length=MAX_LENGTH, pad_token_id=0, token_types=False, has_pairs=False)
    how = {"answers": "all", "system_prompt": None, "too_long": "cut", "packing": packing, "end_ids": ()}
    task = InstructionTask(text, **how)
    stored = task.encode({"messages": pa.array(conversations(in_turns=in_turns), MESSAGES)})
    stored = task.pack(stored) if packing else stored
    rows = pa.RecordBatch.from_pydict(stored).to_pylist()
    examples = [{"id": i, **{name: np.array(values) for name, values in row.items()}} for i, row in enumerate(rows)]
    batch = task.collate(examples, Draw(0, 0))
    loss = task.loss(net.train(), batch).sum / batch.num_targets
    loss.backward()
    save_file({name: p.grad.clone() for name, p in net.named_parameters()}, out)
    return {"loss": loss.item(), "num_targets": int(batch.num_targets), "num_rows": len(examples)}


def theirs(model: str, out: str, in_turns: bool) -> common.Result:
    """To be called, in TRL's environment: the same of the batch that SFTTrainer makes."""
    from datasets import Dataset
    from safetensors.torch import save_file
    from trl import SFTConfig, SFTTrainer

    rows = [{"messages": turns} for turns in conversations(in_turns=True)]
    if not in_turns:
        rows = [{"prompt": turns[:1], "completion": turns[1:]} for turns in conversations(in_turns=False)]
    arguments = SFTConfig(
        output_dir=str(Path(out).parent / "trl"),
        max_length=MAX_LENGTH,
        assistant_only_loss=in_turns,
        per_device_train_batch_size=len(rows),
        model_init_kwargs={"dtype": "float32"},
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer: Any = SFTTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows))
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model.train(), dict(batch))
    loss.backward()
    save_file({name: p.grad.clone() for name, p in trainer.model.named_parameters()}, out)
    return {"loss": loss.item(), "num_targets": int((batch["labels"][:, 1:] != -100).sum()), "num_rows": len(rows)}


def distance(ours: Path, theirs: Path) -> float:
    """Norm of the difference of all gradients over their norm."""
    import torch
    from safetensors.torch import load_file

    mine, other = load_file(ours), load_file(theirs)
    flat = [torch.cat([grads[name].double().flatten() for name in sorted(mine)]) for grads in (mine, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    python = common.environment(parser.parse_args().cache, "trl", TRL, alone=WEIGHTS)
    lines, differs = [], False
    with common.work_folder(threads=1) as folder:
        common.call(made, folder=folder)
        for name, in_turns, packing in (("pairs", False, False), ("turns", True, False), ("turns, packed", True, True)):
            shared = {"model": folder / name.split(",")[0], "in_turns": in_turns}
            mine = common.call(ours, **shared, out=folder / "ours.safetensors", packing=packing)
            other = common.call(theirs, python=python, **shared, out=folder / "theirs.safetensors")
            apart = distance(folder / "ours.safetensors", folder / "theirs.safetensors")
            differs |= not (abs(mine["loss"] / other["loss"] - 1) <= TOLERANCE and apart <= TOLERANCE)
            counts = [
                f"{mine['num_targets']} in {mine['num_rows']} rows",
                f"{other['num_targets']} in {other['num_rows']} rows",
            ]
            lines.append([name, *counts, f"{mine['loss']:.7f}", f"{other['loss']:.7f}", f"{apart:.1e}"])
    heads = ["conversations", "learned tokens", "of TRL", "loss", "of TRL", "gradients differ by"]
    common.print_table(heads, lines)
    sys.exit(int(differs))


if __name__ == "__main__":
    main()
