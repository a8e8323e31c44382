"""What a user can get wrong: the exit code, one clear message, no traceback, nothing written."""

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.pipeline.conftest import SMALL, Folder, read, sentences, write_rows

LSTM = [*SMALL["lstm"], "data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.epochs=1"]
ONE_CLASS = "text,label\ngood,yes\nfine,yes\nwell,yes\nnice,yes\n"


def everything(folder: Folder) -> dict[Path, int]:
    """All there is but for the cache of prepared rows."""
    return {p: p.lstat().st_mtime_ns for p in folder.path.rglob("*") if "cache" not in p.relative_to(folder.path).parts}


def assert_refused(folder: Folder, args: list[str], code: int, words: str) -> None:
    before = everything(folder)
    refused = folder(*args)
    assert refused.code == code and words in refused.err, refused
    assert "Traceback" not in refused.err and refused.out == ""
    assert everything(folder) == before


@pytest.mark.parametrize("verb", ["preprocess", "train", "run"])
@pytest.mark.parametrize(
    ("content", "args", "words"),
    [
        (None, [], "reviews.csv"),
        ("", [], "reviews.csv"),
        ("text,label\n", [], "no rows"),
        ("review,label\ngood,yes\n", [], "review"),
        ("text,label\ngood\n", [], "reviews.csv:2"),
        (ONE_CLASS, ["split=random"], "nothing to tell apart"),
        ("text,label\n ,yes\n ,no\n ,yes\n ,no\n", ["split=random"], "blank"),
        ("text,label\ngood,yes\n", [], "too few"),
        ("text,label\ngood,yes\n,\n", ["data.where={label: maybe}"], "maybe"),
        ("text,label\ngood,3\nbad,2\nso so,some\nfine,4\n", ["task=regression", "split=random"], "'some'"),
    ],
)
def test_data(folder: Folder, verb: str, content: str | None, args: list[str], words: str):
    if content is not None:
        (folder / "reviews.csv").write_text(content)
    assert_refused(folder, [verb, *LSTM, *args], 3, words)


@pytest.mark.parametrize("verb", ["train", "run"])
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["model=bert", "model.pretrained=./nowhere"], 4, "nowhere"),
        (["model=bert", "model.pretrained=./empty"], 4, "empty"),
        (["model=bert", "model.pretrained=./pickled"], 4, "pytorch_model.bin"),
        (["model=run", "model.path=nowhere"], 4, "nowhere"),
        (["model=run", "model.path=empty"], 4, "empty"),
        (["model=run", "model.path=reviews.csv"], 4, "reviews.csv"),
        (["model=bert", "model.hidden_size=30", "model.num_heads=4"], 2, "model.hidden_size"),
    ],
)
def test_models(reviews: Folder, verb: str, args: list[str], code: int, words: str):
    (reviews / "empty").mkdir()
    (reviews / "pickled").mkdir()
    (reviews / "pickled" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (reviews / "pickled" / "pytorch_model.bin").write_bytes(b"")
    assert_refused(reviews, [verb, *args, "data.train_file=reviews.csv", "training.epochs=1"], code, words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("verb", ["train", "run"])
def test_no_gpu(reviews: Folder, verb: str):
    assert_refused(reviews, [verb, *LSTM, "hardware=cuda"], 5, "no CUDA device")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "-rf", "$(id)", ".hidden", "x" * 101, "a\0b"])
def test_run_names(reviews: Folder, name: str):
    assert_refused(reviews, ["train", *LSTM, f"run_name='{name}'"], 2, "run_name")


@pytest.mark.parametrize("place", ["taken", "taken/below", "reviews.csv"])
def test_a_file_in_the_way_of_the_runs(reviews: Folder, place: str):
    (reviews / "taken").write_text("mine")
    assert_refused(reviews, ["train", *LSTM, f"output_dir={place}"], 5, place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(reviews: Folder):
    (reviews / "locked").mkdir(mode=0o500)
    assert_refused(reviews, ["train", *LSTM, "output_dir=locked"], 5, "locked")


@pytest.fixture(scope="module")
def trained_once(shared: Folder) -> Folder:
    """A folder with reviews.csv and a run `mine`."""
    write_rows(shared / "reviews.csv", sentences(200))
    shared.ok("train", *LSTM, "run_name=mine")
    return shared


@pytest.fixture
def trained(trained_once: Folder, tmp_path: Path) -> Folder:
    return trained_once.copy(tmp_path)


@pytest.mark.parametrize("verb", ["evaluate", "export", "predict"])
@pytest.mark.parametrize("name", ["nowhere", "empty", "reviews.csv", "runs/mine", "begun", "robbed"])
def test_what_is_no_trained_run(trained: Folder, verb: str, name: str):
    (trained / "empty").mkdir()
    for copy in ("begun", "robbed"):
        shutil.copytree(trained.latest("mine"), trained / copy, symlinks=True)
    shutil.rmtree(trained / "begun" / "checkpoints")
    (trained / "robbed" / "checkpoints" / "best" / "model.safetensors").unlink()
    assert_refused(trained, [verb, name], 4, name)


def test_rows_that_a_run_has_not(reviews: Folder):
    reviews.ok("train", *LSTM, "split.test_fraction=0", "run_name=mine")
    assert_refused(reviews, ["evaluate", "runs/mine/latest"], 3, "no test rows")
    assert_refused(reviews, ["evaluate", "runs/mine/latest", "file=nowhere.csv"], 3, "nowhere.csv")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["finetune", "nowhere"], 4, "nowhere"),
        (["finetune"], 2, "model.path"),
        (["finetune", "runs/mine/latest", "data.label_column=nothing"], 3, "nothing"),
        (["finetune", "runs/mine/latest", "tokenizer=char"], 2, "tokenizer"),
        (["finetune", "runs/mine/latest", "task=masked_lm", "data.label_column=null"], 4, "mask"),
        (["finetune", "runs/mine/latest", "tokenizer.max_length=5000"], 4, "5000"),
    ],
)
def test_finetune(trained: Folder, args: list[str], code: int, words: str):
    assert_refused(trained, [*args, "data.train_file=reviews.csv"], code, words)


def test_a_data_mistake_leaves_an_earlier_run_the_latest(trained: Folder):
    run = trained.latest("mine")
    assert trained("train", *LSTM, "run_name=mine", "data.label_column=nothing").code == 3
    assert trained.latest("mine") == run and read(run / "result.json")


def test_a_finished_run_is_never_written_over(trained: Folder):
    before = everything(trained)
    write_rows(trained / "reviews.csv", sentences(300))
    trained.ok("train", *LSTM, "run_name=mine", "seed=3")
    after = everything(trained)
    changed = {p for p in before if after.get(p) != before[p]}
    assert {p.name for p in changed} <= {"latest", "mine", "reviews.csv"}


def test_a_missing_package_is_told_before_the_training(folder: Folder, monkeypatch):
    write_rows(folder / "rows.csv", sentences(40))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else find(name, *rest))
    done = folder("run", "data.train_file=rows.csv", *SMALL["lstm"])
    assert done.code == 5 and "onnxruntime" in done.err and "llmtune[onnx]" in done.err
    assert not (folder / "runs").exists()
