"""Instruction tuning from conversations to an export, as a user runs it."""

import json
import shutil

import pytest
from transformers import AutoTokenizer, GenerationConfig

from tests.pipeline.conftest import SMALL, Folder, read, sha256, step_losses
from tests.pipeline.test_resume import assert_equal_ends

ANIMALS = ["cat", "dog", "hen", "owl", "pig", "cow", "fox", "bee"]
COMMON = [
    *SMALL["gpt"],
    "task=instruction",
    "data.train_file=talk.jsonl",
    "tokenizer.max_length=64",
    "tokenizer.vocab_size=400",
]
COMMON += ["optimizer.lr=.02", "schedule=constant", "training.batch_size=8", "training.log_every=1"]


def talk(num_rows: int) -> str:
    """Two turns each: the plural of a word, and whether that was all."""
    rows = []
    for i in range(num_rows):
        word, other = ANIMALS[i % 8], ANIMALS[i // 8 % 8]
        turns = [("human", f"many {word}"), ("gpt", f"{word}s"), ("human", f"and {other}"), ("gpt", "no")]
        rows.append(json.dumps({"conversations": [{"from": who, "value": said} for who, said in turns]}) + "\n")
    return "".join(rows)


@pytest.fixture
def talks(folder: Folder) -> Folder:
    (folder / "talk.jsonl").write_text(talk(64))
    return folder


def test_from_conversations_to_an_export(talks: Folder):
    args = [*COMMON, "tokenizer=word", "tokenizer.min_frequency=1", "training.epochs=12", "export=huggingface"]
    said = " ".join(talks.ok("run", *args, "run_name=talk").err.split())
    assert "conversations are read as sharegpt (columns conversations)" in said and "written by the template chatml" in said
    run = talks.latest("talk")
    metrics = read(run / "evaluation" / "test" / "metrics.json")
    assert metrics["accuracy"] > 0.7 and metrics["perplexity"] < 3 and {"loss", "perplexity", "accuracy"} <= set(metrics)
    for directory in (run / "export" / "huggingface", run / "checkpoints" / "best"):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": "many cat"}], add_generation_prompt=True, tokenize=False
        )
        assert prompt == "<|im_start|>user\nmany cat<|im_end|>\n<|im_start|>assistant\n"
        ends = GenerationConfig.from_pretrained(directory).eos_token_id
        assert tokenizer.convert_ids_to_tokens(ends) == ["<|im_end|>", "<|endoftext|>"]
    assert read(run / "export" / "parity.json")["exports"]["huggingface"]["argmax_differences"] == 0
    other = [json.dumps({"prompt": "many cow", "completion": "cows"})]
    (talks / "other.jsonl").write_text("\n".join(other) + "\n")
    scored = talks.ok("evaluate", str(run), "file=other.jsonl")
    assert read(run / "evaluation" / "other.jsonl" / "metrics.json")["loss"] < 2, scored.out


@pytest.mark.parametrize("packing", ["false", "true"])
def test_a_resumed_run_ends_as_the_uninterrupted_one(talks: Folder, tmp_path_factory, packing: str):
    args = [
        *COMMON,
        f"task.packing={packing}",
        "tokenizer.max_length=96",
        "training.gradient_accumulation_steps=2",
        "model.dropout=.1",
    ]
    args += [
        "training.save_every=3",
        "training.keep_checkpoints=9",
        "run_name=r",
        "training.batch_size=4",
        "hardware.num_threads=1",
    ]
    talks.ok("train", *args, "training.epochs=1", "training.max_steps=12")
    whole = talks.latest("r")
    assert len(step_losses(whole)) >= 5
    cut = talks.copy(tmp_path_factory.mktemp("cut") / "folder")
    run = cut.latest("r")
    (run / "result.json").unlink()
    for step in sorted((run / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(step)
    for link in ("best", "latest"):
        (run / "checkpoints" / link).unlink()
    cut.ok("train", *args, "training.epochs=1", "training.max_steps=12")
    assert cut.latest("r") == run
    assert_equal_ends(run, whole)


def test_pretrained_then_tuned(talks: Folder):
    """The second stage takes the first one's tokenizer, which has no chat tokens: it writes plainly."""
    (talks / "text.txt").write_text(
        "\n".join(f"the {a} and the {b} say again many {a}s" for a in ANIMALS for b in ANIMALS) + "\n"
    )
    (talks / "recipes").mkdir()
    recipe = {
        "defaults": [{"override /task": "causal_lm"}, {"override /model": "gpt"}, {"override /tokenizer": "bpe"}],
        "data": {"train_file": "text.txt", "label_column": None},
        "training": {"epochs": 1},
        "finetune": {
            "task": {"type": "instruction", "packing": True},
            "data": {"train_file": "talk.jsonl"},
            "training": {"epochs": 2},
        },
    }
    (talks / "recipes" / "both.yaml").write_text(json.dumps(recipe))
    sizes = ["tokenizer.vocab_size=300", "tokenizer.max_length=200", *SMALL["gpt"][1:]]
    talks.ok("run", "+recipe=both", *sizes, "export=huggingface")
    second = talks.latest("both") / "finetune"
    facts = read(second / "checkpoints" / "best" / "llmtune.json")["task"]
    assert facts["type"] == "instruction" and facts["packing"] is True and len(facts["end_ids"]) == 1
    template = AutoTokenizer.from_pretrained(second / "export" / "huggingface").chat_template
    assert "Assistant:" in template
    stages = {entry["stage"]: entry for entry in read(second / "data.json")["splits"]["train"]}
    assert stages["tokenized"]["packed rows"] < stages["tokenized"]["rows_out"]
    first = talks.latest("both") / "checkpoints" / "best" / "tokenizer.json"
    assert sha256(first) == sha256(second / "checkpoints" / "best" / "tokenizer.json")


def test_what_was_cut_is_told_and_kept(talks: Folder):
    rows = [{"instruction": "x " * n, "output": "y " * 9} for n in (1, 1, 1, 1, 1, 1, 1, 1, 20, 90)]
    (talks / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = [*COMMON, "split.validation_fraction=0", "split.test_fraction=0", "training.max_steps=1", "run_name=cut"]
    said = " ".join(talks.ok("train", *args, "tokenizer.vocab_size=259").err.split())
    assert "of 10 conversations 1 are cut and 1 left out (no answer within max_length) at tokenizer.max_length=64" in said
    [entry] = [e for e in read(talks.latest("cut") / "data.json")["splits"]["train"] if e["stage"] == "tokenized"]
    assert (entry["rows_out"], entry["truncated"], entry["left_out"]) == (9, 1, {"no answer within max_length": 1})


def test_mistakes(talks: Folder):
    with (talks / "talk.jsonl").open("a") as file:
        file.write(json.dumps({"conversations": [{"from": "boss", "value": "x"}]}) + "\n")
    bad = talks("train", *COMMON)
    assert bad.code == 3 and "talk.jsonl:65" in bad.err and "'boss'" in bad.err and "data.roles={boss: assistant}" in bad.err
    told = talks.ok("preprocess", *COMMON, "data.bad_conversations=drop").out
    assert "-1 an unknown role" in told


def test_a_run_of_packed_rows_alone_is_exported(talks: Folder):
    """Without validation and test rows, exports are compared on the train rows, which are packed."""
    args = [*COMMON, "task.packing=true", "split.validation_fraction=0", "split.test_fraction=0", "training.max_steps=1"]
    talks.ok("train", *args, "tokenizer.max_length=128", "run_name=packed")
    run = talks.latest("packed")
    talks.ok("export", str(run), "export=[huggingface,onnx]")
    exports = read(run / "export" / "parity.json")["exports"]
    assert {facts["rows_from"] for facts in exports.values()} == {"train"} and len(exports) == 2
