"""Whether llama.cpp continues texts as the checkpoint does: export=gguf of a run in each type, 64 tokens by greedy choice.

    python scripts/bench/gguf_llama_cpp.py RUN PYTHON [TEXT ...]

PYTHON is one that has llama-cpp-python: python -m venv E && E/bin/pip install llama-cpp-python (it compiles for minutes).
Prints, for each type: texts with the same tokens, new tokens that are the same, and how far the first other one was behind in
the checkpoint's logits. Exit code 1 if an f32 file tokenizes in another way, or differs where that was no close call.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OUTTYPES = ("f32", "f16", "q8_0")
NEW_TOKENS = 64
CLOSE = 0.02  # in logits: llama.cpp's sums and its GELU, which is a table in half precision, differ from torch's by as much
TEXTS = ["Once upon a time", "The film was", "What is  12 + 345?", "“Café” – 你好, 😀\n\nand"]
WITH_LLAMA = """
import json, sys
import llama_cpp
from llama_cpp import Llama

defaults = llama_cpp.llama_model_default_params()
defaults.use_extra_bufts = False  # kernels for AMX, which not every virtual machine that has it allows
llama_cpp.llama_cpp.llama_model_default_params = llama_cpp.llama_model_default_params = lambda: defaults
file, texts, count, longest = json.loads(sys.argv[1])
model = Llama(file, n_ctx=0, verbose=False, seed=0)
for text in texts:
    ids = model.tokenize(text.encode(), add_bos=True, special=True)
    new = []
    model.reset()
    for token in model.generate(ids, top_k=1, temp=0.0, repeat_penalty=1.0):
        new.append(token)
        if len(new) == count or len(ids) + len(new) == longest:
            break
    print(json.dumps([ids, new]))
"""


def export(run: str, folder: Path, *forms: str) -> Path:
    """Of a run, into a folder."""
    done = subprocess.run([sys.executable, "-m", "llmtune", "export", run, f"output={folder}", *forms], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return folder


def continued(python: str, file: Path, texts: list[str], *, longest: int) -> list[tuple[list[int], list[int]]]:
    """Tokens of each text and what llama.cpp adds, together at most `longest`."""
    order = json.dumps([str(file), texts, NEW_TOKENS, longest])
    done = subprocess.run([python, "-c", WITH_LLAMA, order], check=True, stdout=subprocess.PIPE, text=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[[")]


@torch.inference_mode()
def logits_after(model: torch.nn.Module, ids: list[int], new: list[int]) -> torch.Tensor:
    """What the checkpoint gives before each of the new tokens: [new, vocabulary]."""
    return model(torch.tensor([[*ids, *new]])).logits[0, len(ids) - 1 : -1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("python")
    parser.add_argument("texts", nargs="*", default=TEXTS)
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as place:
        whole = export(args.run, Path(place) / "whole", "export=[huggingface]") / "huggingface"
        tokenizer, model = AutoTokenizer.from_pretrained(whole), AutoModelForCausalLM.from_pretrained(whole).eval()
        print("| weights | MB | texts with the same tokens | new tokens that are the checkpoint's | largest lead of another |")
        print("|---|---|---|---|---|")
        for outtype in OUTTYPES:
            folder = export(args.run, Path(place) / outtype, "export=[gguf]", f"export.gguf.outtype={outtype}")
            file = folder / "gguf" / "model.gguf"
            same_texts, same, total, lead = 0, 0, 0, 0.0
            made = continued(args.python, file, args.texts, longest=model.config.max_position_embeddings)
            for text, (ids, new) in zip(args.texts, made, strict=True):
                same_texts += ids == tokenizer(text)["input_ids"]
                logits_NV = logits_after(model, ids, new)
                chosen_N = logits_NV[range(len(new)), new]
                same += int((logits_NV.argmax(-1) == torch.tensor(new)).sum())
                total += len(new)
                lead = max(lead, float((logits_NV.max(-1).values - chosen_N).max()))
            size = file.stat().st_size / 1e6
            print(f"| {outtype} | {size:.1f} | {same_texts} of {len(args.texts)} | {same} of {total} | {lead:.4f} |")
            failed |= outtype == "f32" and (same_texts < len(args.texts) or lead > CLOSE)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
