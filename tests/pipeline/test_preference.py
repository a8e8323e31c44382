"""Preferences from a first stage of answers to an evaluated export, as a user runs it."""

import json
import math
import shutil

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, step_losses
from tests.pipeline.test_resume import assert_equal_ends, save_llama

ANIMALS = ["cat", "dog", "hen", "owl", "pig", "cow", "fox", "bee"]
BASE = ["train", *SMALL["gpt"], "task=instruction", "data.train_file=talk.jsonl", "run_name=base", "optimizer.lr=.02"]
BASE += ["tokenizer=bpe", "tokenizer.vocab_size=400", "tokenizer.max_length=64", "training.epochs=2", "model.dropout=.1"]
TUNED = ["task=preference", "data.train_file=pairs.jsonl", "schedule=constant", "training.batch_size=8", "training.log_every=1"]
DPO = ["finetune", "model.path=runs/base/latest", *TUNED, "optimizer.lr=.005"]


def pairs(num_rows: int) -> str:
    """Plurals, and a rude word behind them. One of the pairs has no difference."""
    rows = []
    for i in range(num_rows):
        word = ANIMALS[i % 8]
        rows.append({"prompt": f"{i} many {word}", "chosen": f"{word}s", "rejected": f"{word}s you fool" if i else f"{word}s"})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def shared_base(tmp_path_factory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("base"))
    talk = [json.dumps({"prompt": f"{i} many {ANIMALS[i % 8]}", "completion": f"{ANIMALS[i % 8]}s"}) for i in range(48)]
    (folder / "talk.jsonl").write_text("\n".join(talk) + "\n")
    (folder / "pairs.jsonl").write_text(pairs(81))
    folder.ok(*BASE)
    save_llama(folder / "llama")
    return folder


@pytest.fixture
def base(shared_base: Folder, tmp_path) -> Folder:
    return shared_base.copy(tmp_path / "folder")


def words(said: str) -> str:
    return " ".join(said.split())


def test_from_pairs_to_an_export(base: Folder):
    said = words(base.ok(*DPO, "run_name=dpo", "training.epochs=4", "training.eval_every=8").err)
    assert "conversations are read as prompt_completion (columns prompt, chosen, rejected)" in said
    assert "reference of train: 64/64" in said and "reference of validation: 8/8" in said
    run = base.latest("dpo")
    assert read(run / "data.json")["splits"]["train"][0]["left_out"] == {"chosen equals rejected": 1}
    steps = [line for line in read_lines(run / "metrics.jsonl") if line["event"] == "step"]
    assert steps[0]["parts"].keys() == {"accuracy", "margin"} and abs(steps[0]["loss"] - math.log(2)) < 0.05
    found = [line["metrics"] for line in read_lines(run / "metrics.jsonl") if line["event"] == "evaluation"]
    assert found[-1]["loss"] < found[0]["loss"] < math.log(2) + 0.01
    assert found[-1]["accuracy"] == 1 and found[-1]["margin"] > found[0]["margin"]
    assert found[-1]["margin"] == pytest.approx(found[-1]["chosen_reward"] - found[-1]["rejected_reward"], abs=1e-6)

    base.ok("evaluate", str(run), "evaluation.generate_rows=2", "evaluation.max_new_tokens=8")
    by_one = read(run / "evaluation" / "test" / "metrics.json")
    base.ok("evaluate", str(run), "evaluation.batch_size=3")
    by_three = read(run / "evaluation" / "test" / "metrics.json")
    assert by_three == pytest.approx({name: by_one[name] for name in by_three}, rel=1e-5)
    shown = read_lines(run / "evaluation" / "test" / "predictions.jsonl")
    assert len(shown) == 8 and shown[0]["rejected"].endswith("you fool<|im_end|>")
    assert shown[0]["chosen_reward"] > shown[0]["rejected_reward"]
    answers = read_lines(run / "evaluation" / "test" / "answers.jsonl")
    assert all(row["reference"] in {f"{word}s" for word in ANIMALS} for row in answers)

    (base / "other.json").write_text(json.dumps([{"prompt": "many cow", "chosen": "cows", "rejected": "cows you fool"}] * 2))
    assert "reference of test: 2/2" in words(base.ok("evaluate", str(run), "file=other.json").err)
    assert read(run / "evaluation" / "other.json" / "metrics.json")["accuracy"] == 1
    assert "reference" not in base.ok("evaluate", str(run), "file=other.json").err
    base.ok("export", str(run), "export=huggingface")
    assert read(run / "export" / "parity.json")["exports"]["huggingface"]["argmax_differences"] == 0
    written = base.ok("predict", str(run), "other.json", "max_new_tokens=4").out
    assert len(written.splitlines()) == 2 and "answer" in json.loads(written.splitlines()[0])

    shutil.move(base / "runs" / "base", base / "gone")
    failed = base("evaluate", str(run), "split=train")
    assert failed.code == 4 and "the model that training started from" in words(failed.err)


def test_the_reference_is_computed_once(base: Folder):
    """For all settings of the loss; not for another model, nor for losses without one."""
    short = [*DPO, "training.max_steps=2", "split.validation_fraction=0", "split.test_fraction=0"]
    assert "reference of train" in base.ok(*short, "run_name=a").err
    assert "reference of" not in base.ok(*short, "run_name=b", "task.beta=.5", "task.label_smoothing=.1").err
    assert "reference of" not in base.ok(*short, "run_name=c", "task.loss=ipo").err
    first = read_lines(base.latest("c") / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(25, abs=1)  # (0 - 1 / (2 * 0.1))²
    for loss in ("orpo", "simpo"):
        assert "reference of" not in base.ok(*short, f"run_name={loss}", f"task.loss={loss}").err
    base.ok(*BASE, "training.resume=never", "seed=1")
    assert "reference of train" in base.ok(*short, "run_name=d").err


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_resumed_run_ends_as_the_uninterrupted_one(base: Folder, tmp_path_factory, kind: str):
    """Also where the reference is gone from the cache and computed again."""
    args = [*DPO, "run_name=r", f"tuning={kind}", "training.gradient_accumulation_steps=2", "training.save_every=3"]
    args += ["training.epochs=2", "training.keep_checkpoints=9", "hardware=cpu", "hardware.num_threads=1"]
    args += ["hardware.precision=fp32", "hardware.num_workers=1"]
    base.ok(*args)
    whole = base.latest("r")
    assert len(step_losses(whole)) == 16
    cut = base.copy(tmp_path_factory.mktemp("cut") / "folder")
    run = cut.latest("r")
    (run / "result.json").unlink()
    for step in sorted((run / "checkpoints").glob("step-*"))[2:]:
        shutil.rmtree(step)
    for link in ("best", "latest"):
        (run / "checkpoints" / link).unlink()
    for entry in (cut / "cache" / "prepared").iterdir():
        shutil.rmtree(entry)
    cut.ok(*args)
    assert cut.latest("r") == run
    assert_equal_ends(run, whole)


def test_low_rank_updates_begin_at_the_reference(base: Folder):
    """In the precision of training, so that rounding makes no rewards."""
    args = ["train", "model=gpt", "model.pretrained=llama", "tuning=lora", *TUNED, "run_name=lora", "task.template=plain"]
    args += ["hardware=cpu", "hardware.precision=bf16", "training.max_steps=3", "tokenizer.max_length=32"]
    base.ok(*args)
    (_, first), *_ = step_losses(base.latest("lora"))
    assert abs(first - math.log(2)) < 1e-3


def test_a_loss_without_a_reference_starts_from_scratch(base: Folder):
    args = ["train", *SMALL["gpt"], *TUNED, "task.loss=orpo", "run_name=orpo", "optimizer.lr=.01", "training.epochs=3"]
    base.ok(*args, "tokenizer=bpe", "tokenizer.vocab_size=300", "tokenizer.max_length=64")
    assert read(base.latest("orpo") / "result.json")["metrics"]["accuracy"] == 1


def test_planning_computes_no_reference(base: Folder):
    said = base.ok("plan", "model=run", "model.path=runs/base/latest", *TUNED)
    assert "reference of" not in said.err


def test_everything_cut_away_is_told(base: Folder):
    failed = base(*DPO, "tokenizer.max_length=8", "task.too_long=drop")
    assert failed.code == 3 and "too long" in words(failed.err) and "tokenizer.max_length" in words(failed.err)
