"""The directory for transformers: complete, and of use where there is no llmtune."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from llmtune.errors import ModelError
from llmtune.export import parity, registry
from llmtune.models import registry as models
from tests.tiny import FORMS
from tests.unit.export.conftest import HUGGINGFACE, NUM_ROWS, TEXTS, batches, files_of

WITHOUT_LLMTUNE = """
import json, sys
import torch, transformers

texts, wanted = json.loads(sys.argv[1])
for directory, auto in wanted.items():
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = getattr(transformers, auto).from_pretrained(directory)
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    text = tokenizer.decode(tokenizer(texts[0])["input_ids"], skip_special_tokens=True)
    print(json.dumps({"logits": logits.tolist(), "labels": model.config.id2label, "tokens": len(tokenizer), "text": text}))
assert not [name for name in sys.modules if name.startswith("llmtune")]
"""
KINDS = [
    ("lstm", "classification"),
    ("bert", "regression"),
    ("bert", "masked_lm"),
    ("gpt", "classification"),
    ("mlp", "regression"),
]


def test_transformers_alone_loads_it(bundle, tmp_path):
    wanted = [
        ("bert", "classification"),
        ("bert", "regression"),
        ("bert", "masked_lm"),
        ("gpt", "classification"),
        ("gpt", "causal_lm"),
    ]
    made = {}
    for kind, task in wanted:
        directory = tmp_path / f"{kind}-{task}"
        directory.mkdir()
        made[directory / "export"] = bundle(kind, task, directory)
        registry.write(HUGGINGFACE, made[directory / "export"], directory / "export")
    order = json.dumps([TEXTS, {str(path): FORMS[one.card["task"]] for path, one in made.items()}])
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_LLMTUNE, order],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]

    from transformers import AutoTokenizer

    for one, found in zip(made.values(), answers, strict=True):
        tokenizer = AutoTokenizer.from_pretrained(one.tokenizer_dir)
        inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = one.model(**inputs).logits.numpy()
        valid = inputs["attention_mask"].bool().numpy() if expected.ndim == 3 else slice(None)
        assert np.allclose(np.array(found["logits"])[valid], expected[valid], rtol=0, atol=1e-5)
        assert found["tokens"] == len(tokenizer) and found["text"] == TEXTS[0]
        if one.card["task"] == "classification":
            assert found["labels"] == {"0": "negative", "1": "neutral", "2": "positive"}


@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_what_it_holds(bundle, tmp_path, kind, task):
    made = bundle(kind, task)
    registry.write(HUGGINGFACE, made, tmp_path / "export")
    names = {"config.json", "model.safetensors", "README.md", "llmtune.json"}
    names |= {"generation_config.json"} if task == "causal_lm" else set()
    names |= {"tokenizer.json", "tokenizer_config.json"} if kind != "mlp" else set()
    assert files_of(tmp_path / "export") == names
    facts = json.loads((tmp_path / "export" / "llmtune.json").read_text())
    assert set(facts) == {"llmtune", "task", "tokenizer"} and facts["task"]["type"] == task
    assert "private" not in "".join(p.read_text() for p in (tmp_path / "export").glob("*.json"))  # where the user's base lay
    found = parity.check(HUGGINGFACE, made, tmp_path / "export", batches(made))
    assert found["argmax_differences"] == 0 and found["max_difference"] < 1e-6
    assert found["rows"] == (8 if kind == "mlp" else NUM_ROWS)


def test_it_is_never_written_over(bundle, tmp_path):
    (tmp_path / "export").mkdir()
    with pytest.raises(FileExistsError):
        registry.write(HUGGINGFACE, bundle("mlp", "regression"), tmp_path / "export")


@pytest.mark.parametrize(("kind", "task", "line"), [
    ("bert", "classification", "from transformers import AutoTokenizer, BertForSequenceClassification"),
    ("gpt", "causal_lm", "from transformers import AutoTokenizer, GPT2LMHeadModel"),
    ("lstm", "classification", "`llmtune predict DIRECTORY FILE` loads it"),
])  # fmt: skip
def test_the_model_card(bundle, tmp_path, kind, task, line):
    registry.write(HUGGINGFACE, bundle(kind, task), tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["tags"] == ["llmtune", task] and head["library_name"] == "transformers"
    assert line in body
    for fact in (
        f"- **task**: {task}",
        "- **seed**: 7",
        "- **data**: reviews.csv",
        "- **validation**: accuracy 0.9123, rows 20",
    ):
        assert fact in body


@pytest.mark.parametrize(
    "spoil", [lambda w: w.mul_(-1), lambda w: w.add_(2e-3), lambda w: w.fill_(float("nan"))], ids=["sign", "little", "nan"]
)
@pytest.mark.parametrize(("kind", "task"), KINDS)
def test_an_altered_export_is_found(bundle, tmp_path, kind, task, spoil):
    made = bundle(kind, task)
    directory = tmp_path / "export"
    registry.write(HUGGINGFACE, made, directory)
    altered = models.load(directory)
    spoil([parameter.data for parameter in altered.parameters()][-1])
    altered.save_pretrained(directory)
    num_rows = 8 if kind == "mlp" else NUM_ROWS
    words = rf"by up to (\d\.\d\de[-+]\d\d|nan) in the logits, \d+ other argmax in {num_rows} rows"
    with pytest.raises(ModelError, match=words) as caught:
        parity.check(HUGGINGFACE, made, directory, batches(made))
    assert caught.value.where == str(directory) and caught.value.exit_code == 4
