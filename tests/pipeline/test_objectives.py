"""Training with augmenters behind the text and with objectives: on every kind of model, with loader processes, and resumed."""

import shutil

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, sha256, step_losses, write_rows

COMMON = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", "training.batch_size=16"]
ON_CPU = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]
EVERYTHING = {
    "fgm": ["augment=[cutoff,mask,fgm]", "objective=[l1,l2,label_smoothing]"],
    "word_mixup": ["augment=[cutoff,word_mixup]", "augment.cutoff.replace=nothing", "objective=l2"],
    "r_drop": ["augment=[drop,cutoff]", "objective=[r_drop,label_smoothing]"],
}
RUNS = [("lstm", "fgm"), ("bert", "word_mixup"), ("gpt", "r_drop"), ("gpt", "word_mixup"), ("bert", "fgm")]


@pytest.fixture(scope="module")
def reviews(shared: Folder) -> Folder:
    write_rows(shared / "reviews.csv", sentences(120))
    return shared


def best(folder: Folder, name: str) -> str:
    return sha256(folder.latest(name) / "checkpoints" / "best" / "model.safetensors")


@pytest.mark.parametrize(("model", "what"), RUNS)
def test_a_resumed_run_ends_like_one_that_was_never_cut(reviews: Folder, model: str, what: str):
    """With loader processes in one of them, and none in the other."""
    name = f"{model}-{what}"
    args = ["train", *SMALL[model], *EVERYTHING[what], *COMMON, *ON_CPU, "training.epochs=2", "training.save_every=4"]
    args += ["training.keep_checkpoints=9"]
    reviews.ok(*args, f"run_name={name}")
    run = reviews.latest(name)
    expected, losses = best(reviews, name), step_losses(run)
    parts = [e["parts"] for e in read_lines(run / "metrics.jsonl") if e["event"] == "step"]
    assert all(sum(shares.values()) == pytest.approx(loss) for shares, (_, loss) in zip(parts, losses, strict=True))
    (run / "result.json").unlink()
    for step in sorted((run / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(step)
    told = reviews.ok(*args, f"run_name={name}", "hardware.num_workers=2").err
    assert "after step 4" in told
    assert best(reviews, name) == expected and step_losses(run) == losses


def test_numbers_are_regressed_with_mixup(reviews: Folder):
    args = [*SMALL["lstm"], "task=regression", "data.label_column=length", "augment=mixup", "objective=l2", "run_name=numbers"]
    reviews.ok("train", *COMMON, *args, *ON_CPU, "training.epochs=1")
    assert "mse" in read(reviews.latest("numbers") / "result.json")["metrics"]


def test_updates_learn_from_moved_words(reviews: Folder):
    """LoRA's layers are functions of our own; activations may be computed twice; in bfloat16."""
    reviews.ok("train", *SMALL["bert"], *COMMON, *ON_CPU, "training.max_steps=2", "training.epochs=null", "run_name=base")
    base = str(reviews.latest("base"))
    args = ["finetune", base, *COMMON, "hardware=cpu", "hardware.precision=bf16", "hardware.num_threads=1", "tuning=lora"]
    args += ["augment=fgm", "training.max_steps=4", "training.epochs=null"]
    reviews.ok(*args, "run_name=plain")
    reviews.ok(*args, "run_name=twice", "training.activation_checkpointing=true")
    plain, twice = (step_losses(reviews.latest(name)) for name in ("plain", "twice"))
    assert [loss for _, loss in plain] == pytest.approx([loss for _, loss in twice], rel=1e-3)


def test_a_tokenizer_that_cannot_hide_is_told(reviews: Folder):
    refused = reviews("train", *SMALL["gpt"], *COMMON, *ON_CPU, "augment=mask", "run_name=x")
    assert refused.code == 2 and "augment.mask: the tokenizer has neither" in refused.err


@pytest.fixture(scope="module")
def asked(reviews: Folder) -> list[str]:
    """A run with variants by a masked language model of our own."""
    masked = ["task=masked_lm", "data.label_column=null", "training.max_steps=5", "training.epochs=null", "run_name=mlm"]
    reviews.ok("train", *SMALL["bert"], *COMMON, *ON_CPU, *masked)
    return [*COMMON, *SMALL["lstm"], "augment=contextual", "augment.contextual.model=runs/mlm/latest", "training.epochs=2"]


def test_they_are_made_once_and_a_resume_is_exact(reviews: Folder, asked: list[str]):
    told = reviews.ok("preprocess", *asked)
    assert "variants" in told.out and "384 of 96 rows" in told.out
    args = ["train", *asked, *ON_CPU, "training.save_every=4", "training.keep_checkpoints=9", "run_name=contextual"]
    assert "writing variants" not in reviews.ok(*args).err
    run = reviews.latest("contextual")
    expected, losses = best(reviews, "contextual"), step_losses(run)
    (run / "result.json").unlink()
    for step in sorted((run / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(step)
    reviews.ok(*args, "hardware.num_workers=2")
    assert best(reviews, "contextual") == expected and step_losses(run) == losses
    reviews.ok(*args, "~augment.contextual", "run_name=plain")
    assert best(reviews, "plain") != expected


def test_another_model_makes_others_and_a_run_does_not_go_on_with_them(reviews: Folder, asked: list[str]):
    args = ["train", *asked, *ON_CPU, "training.save_every=4", "training.keep_checkpoints=9", "run_name=drifts"]
    reviews.ok(*args)
    (reviews.latest("drifts") / "result.json").unlink()
    masked = ["task=masked_lm", "data.label_column=null", "training.max_steps=6", "training.epochs=null", "run_name=mlm"]
    reviews.ok("train", *SMALL["bert"], *COMMON, *ON_CPU, *masked)
    refused = reviews(*args)
    assert refused.code == 4 and "the model that wrote variants" in refused.err


def test_a_model_without_the_head_is_refused(reviews: Folder, asked: list[str]):
    reviews.ok("train", *SMALL["bert"], *COMMON, *ON_CPU, "training.max_steps=1", "training.epochs=null", "run_name=cls")
    before = sorted(reviews.path.glob("runs/*"))
    refused = reviews("train", *asked, *ON_CPU, "augment.contextual.model=runs/cls/latest", "run_name=x")
    assert refused.code == 4 and "without a head that predicts masked tokens" in refused.err and "bert_mlm" in refused.err
    assert sorted(reviews.path.glob("runs/*")) == before
    refused = reviews("train", *asked, *ON_CPU, "augment.contextual.model=/nowhere", "run_name=x")
    assert refused.code == 4 and "/nowhere" in refused.err
