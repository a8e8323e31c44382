"""Imbalance end to end: with every kind of classifier, resumed, and with thresholds that go wherever the model goes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmtune.training import run_dir
from tests.pipeline.conftest import SMALL, Folder, pairs, read, read_lines, sentences, sha256, step_losses, write_rows

TRAIN = ["tokenizer.min_frequency=1", "training.batch_size=16", "training.log_every=1", "optimizer.lr=.01"]
EVERYTHING = "balance=[oversample,focal,inverse_frequency,threshold]"


def rare(rows: list[dict[str, str]], *, label: str, keep: int) -> list[dict[str, str]]:
    """The rows, of one label only the first few."""
    few = [row for row in rows if row["label"] == label][:keep]
    return [row for row in rows if row["label"] != label] + few


def noisy(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Some rows without the word that decides, so that no model is sure of all."""
    return [{**row, "text": "the film was of two friends"} if i % 9 == 0 else row for i, row in enumerate(rows)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a run `moved`, trained with thresholds; evaluated and exported."""
    folder = Folder(tmp_path_factory.mktemp("balance"))
    write_rows(folder / "reviews.csv", noisy(rare(sentences(400), label="positive", keep=40)))
    args = [*SMALL["lstm"], *TRAIN, "data.train_file=reviews.csv", "split.validation_fraction=0.3", "split.test_fraction=0.3"]
    folder.told = folder.ok("run", *args, "training.epochs=2", "balance=threshold", "run_name=moved")
    return folder


def test_thresholds_are_found_kept_and_told(trained: Folder):
    run = trained.latest("moved")
    best = run / "checkpoints" / "best"
    found = read(run / "result.json")["thresholds"]
    assert found == read(best / "thresholds.json") and "thresholds.json" in read(best / "MANIFEST.json")["files"]
    assert found["metric"] == "f1_minority" and found["value"] > found["value_without"]
    assert found["label_bias"][0] == 0.0 != found["label_bias"][1]
    assert "positive from a probability of" in trained.told.err and "without thresholds" in trained.told.out
    assert "the train labels are imbalanced" not in trained.told.err
    assert trained.ok("verify", str(run)).code == 0


def test_evaluation_shows_both(trained: Folder):
    run = trained.latest("moved")
    trained.ok("evaluate", str(run), "split=validation")
    metrics, found = read(run / "evaluation" / "validation" / "metrics.json"), read(run / "result.json")["thresholds"]
    assert metrics["f1_minority"] == pytest.approx(found["value"])
    assert metrics["without_thresholds"]["f1_minority"] == pytest.approx(found["value_without"])
    assert {"loss", "per_class"}.isdisjoint(metrics["without_thresholds"])
    page = (run / "evaluation" / "validation" / "report.html").read_text()
    assert "<h2>Thresholds</h2>" in page and "positive from a probability of" in page


def test_predictions_follow_the_thresholds(trained: Folder):
    run = trained.latest("moved")
    cut = 1 / (1 + np.exp(read(run / "result.json")["thresholds"]["label_bias"][1]))
    rows = read_lines(run / "evaluation" / "test" / "predictions.jsonl")
    told = trained.ok("predict", "runs/moved/latest", stdin="".join(row["text"] + "\n" for row in rows)).out
    exported = trained.ok(
        "predict", "runs/moved/latest/export/huggingface", stdin="".join(row["text"] + "\n" for row in rows)
    ).out
    answers = [json.loads(line) for line in told.splitlines()]
    assert told == exported
    labels = {True: "positive", False: "negative"}
    assert [a["label"] for a in answers] == [labels[a["probabilities"]["positive"] > cut] for a in answers]
    assert [a["label"] for a in answers] == [row["prediction"] for row in rows]
    assert any(a["probabilities"][a["label"]] < 0.5 for a in answers)


def test_the_export_tells_of_them(trained: Folder):
    export = trained.latest("moved") / "export"
    card = (export / "huggingface" / "README.md").read_text()
    assert "positive from a probability of" in card and "`logits + label_bias`" in card
    assert all(read(export / name / "llmtune.json")["task"]["label_bias"][1] for name in ("huggingface", "onnx"))
    assert read(export / "parity.json")["exports"]["onnx"]["argmax_differences"] == 0


def test_rows_that_left_the_cache_are_prepared_again(trained: Folder):
    shutil.rmtree(trained / "cache")
    assert trained.ok("evaluate", "runs/moved/latest").code == 0


def test_a_model_that_goes_on_learns_its_own(trained: Folder):
    trained.ok("finetune", "runs/moved/latest", "data.train_file=reviews.csv", "training.max_steps=1", "run_name=on", *TRAIN)
    best = trained.latest("on") / "checkpoints" / "best"
    assert not (best / "thresholds.json").exists() and "label_bias" not in read(best / "llmtune.json")["task"]


def test_training_that_ended_before_its_thresholds_finds_them(trained: Folder, folder: Folder):
    whole = trained.latest("moved")
    shutil.copy(trained / "reviews.csv", folder / "reviews.csv")
    args = [*SMALL["lstm"], *TRAIN, "data.train_file=reviews.csv", "split.validation_fraction=0.3", "split.test_fraction=0.3"]
    command = ["train", *args, "training.epochs=2", "balance=threshold", "run_name=moved"]
    folder.ok(*command)
    run = folder.latest("moved")
    (run / run_dir.RESULT).unlink()
    folder.ok(*command, "training.resume=must")
    assert folder.latest("moved") == run
    assert read(run / "result.json")["thresholds"] == read(whole / "result.json")["thresholds"]


KINDS = {
    "lstm": [*SMALL["lstm"], "data.train_file=reviews.csv", "augment=drop"],
    "bert": [*SMALL["bert"], "data.train_file=reviews.csv"],
    "gpt": [*SMALL["gpt"], "data.train_file=reviews.csv"],
    "mlp": ["model=mlp", "data.train_file=reviews.csv", "data.text_column=null", "data.feature_columns=[length]"],
    "pairs": [*SMALL["bert"], "data.train_file=pairs.csv", "data.text_column=premise", "data.text_pair_column=hypothesis"],
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("kinds"))
    write_rows(folder / "reviews.csv", rare(sentences(200), label="positive", keep=20))
    write_rows(folder / "pairs.csv", rare(pairs(200), label="same", keep=20))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_classifier(files: Folder, kind: str):
    done = files.ok("train", *KINDS[kind], *TRAIN, "training.epochs=1", EVERYTHING, f"run_name={kind}")
    assert "oversample: an epoch has 160 rows of 96" in done.err
    assert read(files.latest(kind) / "result.json")["total_steps"] == 10


def test_several_labels(files: Folder):
    """Weights, focal loss and a threshold for each label, through evaluation and both exports."""
    labels = [["long"] * (i % 3 == 0) + ["bad"] * (i % 20 == 0) for i in range(200)]
    rows = [{"text": row["text"], "labels": own} for row, own in zip(sentences(200), labels, strict=True)]
    (files / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = [*SMALL["lstm"], *TRAIN, "task=multilabel", "data.train_file=tags.jsonl", "data.label_column=labels"]
    args += ["split.validation_fraction=0.3", "split.test_fraction=0.2", "training.epochs=2", "run_name=several"]
    told = files.ok("run", *args, "balance=[inverse_frequency,focal,threshold]")
    run = files.latest("several")
    found = read(run / "result.json")["thresholds"]
    assert found["metric"] == "f1_macro" and found["value"] > found["value_without"] and len(found["cuts"]) == 2
    assert "labels from a probability of:" in told.err and "f1, without thresholds" in told.out
    files.ok("evaluate", str(run), "split=validation")
    metrics = read(run / "evaluation" / "validation" / "metrics.json")
    assert metrics["f1_macro"] == pytest.approx(found["value"])
    assert metrics["without_thresholds"]["f1_macro"] == pytest.approx(found["value_without"])
    assert "sigmoid(logits + label_bias)" in (run / "export" / "huggingface" / "README.md").read_text()
    answers = [json.loads(line) for line in files.ok("predict", str(run), stdin="the film\na good film\n").out.splitlines()]
    cuts = dict(zip(("bad", "long"), found["cuts"], strict=True))
    assert all((name in a["labels"]) == (a["probabilities"][name] >= cuts[name]) for a in answers for name in cuts)


@pytest.mark.parametrize("options", [["balance=undersample"], ["balance=[square_root,focal]", "hardware.num_workers=2"]])
def test_a_resumed_run_is_the_same(files: Folder, options: list[str]):
    """With a sampler, augmentation and micro-batches, and whatever the number of workers."""
    args = [*KINDS["lstm"], *TRAIN, "training.epochs=6", "training.gradient_accumulation_steps=2", "training.save_every=1"]
    args += ["training.keep_checkpoints=100", "hardware=cpu", "hardware.precision=fp32", *options]
    files.ok("train", *args, "run_name=whole", "training.resume=never")
    whole = files.latest("whole")
    cut = files / "runs" / f"cut-{len(options)}"
    shutil.copytree(whole, cut, symlinks=True)
    steps = read(whole / "result.json")["total_steps"]
    (cut / "result.json").unlink()
    for step in range(steps // 2, steps + 1):
        shutil.rmtree(cut / "checkpoints" / f"step-{step:06d}")
    files.ok("train", *args, "run_name=whole", f"training.resume={cut}", "hardware.num_workers=0")
    assert step_losses(cut) == step_losses(whole)
    last = Path("checkpoints") / f"step-{steps:06d}" / "model.safetensors"
    assert sha256(cut / last) == sha256(whole / last)


def test_a_second_stage_has_a_balance_of_its_own(files: Folder):
    (files / "recipes").mkdir(exist_ok=True)
    focal = "balance: {focal: {type: focal, gamma: 1.0}}"
    recipe = f"data: {{train_file: reviews.csv}}\nfinetune:\n  training: {{max_steps: 2}}\n  {focal}\n"
    (files / "recipes" / "two.yaml").write_text(recipe)
    args = [*SMALL["lstm"], *TRAIN, "training.max_steps=2", "balance=oversample", "export=none"]
    files.ok("run", "+recipe=two", *args)
    saved = (files.latest("two") / "finetune" / "config.yaml").read_text()
    assert "focal" in saved and "oversample" not in saved


def test_a_label_that_does_not_occur(files: Folder):
    weights = "balance.class_weights.by_label={positive: 2, odd: 3}"
    done = files("train", *KINDS["lstm"], "balance=class_weights", weights, "run_name=odd")
    assert done.code == 2 and not (files / "runs" / "odd").exists()
    assert "there is no label 'odd'; the labels are: negative, positive" in done.err


def test_an_older_run_has_no_balance_and_averages_nothing(files: Folder):
    files.ok("train", *KINDS["mlp"], *TRAIN, "training.max_steps=2", "run_name=older")
    config = files.latest("older") / "config.yaml"
    text = config.read_text()
    for section in ("balance: {}", "averaging:\n  type: none"):
        assert f"\n{section}\n" in text
        text = text.replace(f"\n{section}\n", "\n")
    config.write_text(text)
    assert "is older and lacks balance=none, averaging=none" in files.ok("evaluate", "runs/older/latest").err
