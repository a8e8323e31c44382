"""From a GGUF file to exports that others run: the verbs in order, then transformers alone."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import tiny_gguf
from tests.pipeline.conftest import SMALL, read

pytest.importorskip("gguf")
pytest.importorskip("peft")

LM = [
    "task=causal_lm",
    "data.train_file=reviews.csv",
    "data.label_column=null",
    "tokenizer.max_length=32",
    "training.max_steps=3",
]
WITHOUT_LLMTUNE = """
import json, sys
import torch, transformers

for directory in sys.argv[1:]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    inputs = tokenizer(["the film", "a story of two friends"], padding=True, padding_side="left", return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    ends = [model.generation_config.eos_token_id, model.generation_config.pad_token_id]
    chat = tokenizer.chat_template and tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    print(json.dumps({"tokens": made[:, -8:].tolist(), "ends": ends, "chat": chat}))
assert not [name for name in sys.modules if name.startswith(("llmtune", "gguf", "peft"))]
"""


def transformers_alone(*directories):
    """What each directory gives where there is no llmtune."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_LLMTUNE, *map(str, directories)],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_lora_on_a_gguf_file_and_a_gpt_from_scratch(reviews):
    tiny_gguf.write(reviews / "start.gguf")
    exports = "export=[huggingface,gguf]"
    reviews.ok("run", *LM, "model=gpt", "model.pretrained=start.gguf", "tuning=lora", exports, "run_name=lora")
    scratch = [*SMALL["gpt"], "tokenizer.lowercase=false", "tokenizer.vocab_size=300"]
    reviews.ok("run", *LM, *scratch, exports, "export.gguf.outtype=f32", "run_name=scratch")
    runs = [reviews.latest(name) for name in ("lora", "scratch")]
    for run in runs:
        told = read(run / "export" / "parity.json")["exports"]["gguf"]
        assert told["rows"] > 0 and told["max_difference"] <= 1e-4 and ("rounding" in told) == (run == runs[0])

    reviews.ok(
        "train", *LM, "model=gpt", f"model.pretrained={runs[1]}/export/gguf", "run_name=again"
    )  # what it wrote, it reads
    shutil.rmtree(reviews / "cache" / "gguf")  # merged: nothing of the start is needed any more
    (reviews / "start.gguf").unlink()
    lora, gpt = transformers_alone(*(run / "export" / "huggingface" for run in runs))
    assert lora["chat"] == "user: hi\n" and gpt["chat"] is None
    assert lora["ends"] == [0, 0] and gpt["ends"] == [0, 0]  # <|endoftext|>
    assert len(lora["tokens"]) == len(gpt["tokens"]) == 2


def test_contradictions_are_told_before_anything_is_read(cli):
    done = cli("run", "data.train_file=none.csv", "export=[gguf]")
    assert done.code == 2 and "export.gguf: writes models that continue a text" in done.err
    done = cli("run", "task=causal_lm", "model=gpt", "tokenizer=word", "data.train_file=none.csv", "export=[gguf]")
    assert done.code == 2 and "use tokenizer=bpe" in done.err and "tokenizer.lowercase: is true" in done.err


def test_a_broken_file(reviews):
    (reviews / "start.gguf").write_bytes(b"GGUF and no more")
    done = reviews("train", *LM, "model=gpt", "model.pretrained=start.gguf")
    assert done.code == 4 and "damaged or cut off" in done.err and "start.gguf" in done.err
