"""How fast a model writes, beside transformers' own generate: python scripts/bench/generate.py MODEL_DIR [--new 64].

Both have the same weights in the same precision and write the same number of tokens for the same prompts, in turns in one
process; transformers has its own attention kernel and cache. Prints a Markdown table of tokens a second, best of the turns.
The prompts are of uneven length, as questions are.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from llmtune.config.sections.generation import Sampling
from llmtune.generation.prompts import Prompts
from llmtune.generation.writer import Writer
from llmtune.training import attention, cpu

QUESTIONS = [
    "Name three colours.",
    "Explain to a child why the sky is blue, in simple words and with an example from everyday life.",
    "What is the capital of France?",
    "Write a polite letter to a landlord who has not repaired the heating for two weeks. Mention that there are two small "
    "children in the flat, that the last letter was not answered, and that the rent will be lowered if nothing happens soon.",
    "Translate into German: good morning.",
    "List the planets.",
    "Summarise the plot of Romeo and Juliet in four sentences, and say who dies in what order.",
    "What is 12 times 12?",
]
NEUTRAL = {"top_k": None, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 0, "stop": ()}
WAYS = {"likeliest token": {"temperature": 0.0, "top_p": 1.0}, "drawn, top_p=.9": {"temperature": 0.8, "top_p": 0.9}}


def best(turns: int, *jobs: Callable[[], int]) -> list[float]:
    """Tokens a second of each job, the best of some turns."""
    rates = [0.0] * len(jobs)
    for _ in range(turns):
        for i, job in enumerate(jobs):
            started = time.perf_counter()
            rates[i] = max(rates[i], job() / (time.perf_counter() - started))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    cpu.tune(compiles=False)
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    print(f"{args.new} new tokens, {torch.get_num_threads()} threads\n")
    print("| precision | rows | | llmtune | transformers | |\n|---|---|---|---|---|---|")
    for precision in args.precisions:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, precision)).eval()
        model.generation_config.eos_token_id = None  # both write all of their tokens
        for rows in args.batches:
            texts = [QUESTIONS[i % len(QUESTIONS)] for i in range(rows)]
            padded = tokenizer(texts, padding=True, return_tensors="pt")
            ids = [tokenizer(text)["input_ids"] for text in texts]
            for name, way in WAYS.items():
                prompts = Prompts(tokenizer, window=None, ends=(), chat=None, is_bare=True, start=0)
                writer = Writer(model, prompts, Sampling(max_new_tokens=args.new, **NEUTRAL, **way), slides=True)
                options = {"do_sample": True, **way, "top_k": 0} if way["temperature"] else {"do_sample": False}

                def ours(writer: Writer = writer, ids: list[list[int]] = ids) -> int:
                    AttentionInterface.register("sdpa", attention.attend)
                    return sum(a.num_tokens for a in writer.answers(ids, keys=range(len(ids)), batch_size=len(ids)))

                def theirs(model=model, padded=padded, options=options) -> int:
                    AttentionInterface.register("sdpa", sdpa_attention_forward)
                    made = model.generate(**padded, max_new_tokens=args.new, pad_token_id=tokenizer.pad_token_id, **options)
                    return len(made) * (made.shape[1] - padded["input_ids"].shape[1])

                mine, others = best(args.turns, ours, theirs)
                print(f"| {precision} | {rows} | {name} | {mine:,.1f} | {others:,.1f} | {mine / others:.2f} |", flush=True)


if __name__ == "__main__":
    main()
