"""llama.cpp continues texts as the checkpoint does; skipped where there is no llama-cpp-python.

The variable LLAMA_CPP_PYTHON names an interpreter that has it, if that of the tests does not.
"""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests import tiny_gguf
from tests.conftest import ROOT
from tests.pipeline.conftest import SMALL, Folder, sentences, write_rows

PYTHON = os.environ.get("LLAMA_CPP_PYTHON") or (sys.executable if importlib.util.find_spec("llama_cpp") else None)
LM = [
    "task=causal_lm",
    "data.train_file=reviews.csv",
    "data.label_column=null",
    "tokenizer.max_length=128",
    "training.max_steps=3",
]
STARTS = {
    "gpt": [*SMALL["gpt"], "tokenizer.lowercase=false", "tokenizer.vocab_size=300"],
    "llama": ["model=gpt", "model.pretrained=start.gguf"],
}


@pytest.mark.skipif(PYTHON is None, reason="needs llama-cpp-python, or LLAMA_CPP_PYTHON")
@pytest.mark.parametrize("start", STARTS)
def test_the_same_tokens(tmp_path, start):
    pytest.importorskip("gguf")
    folder = Folder(tmp_path)
    write_rows(folder / "reviews.csv", sentences(200))
    tiny_gguf.write(folder / "start.gguf")
    folder.ok("train", *LM, *STARTS[start], "run_name=lm")
    script = ROOT / "scripts" / "bench" / "gguf_llama_cpp.py"
    done = subprocess.run(
        [sys.executable, script, str(folder.latest("lm")), PYTHON],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LLMTUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert all(f"| {outtype} |" in done.stdout for outtype in ("f32", "f16", "q8_0"))
