"""Optimizers, averages of the weights and layer drop, end to end: a resume is exact, and the average is what comes out."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, sha256, step_losses, write_rows

COMMON = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", "training.batch_size=16"]
LASTING = ["training.epochs=3", "training.save_every=4", "training.keep_checkpoints=99", "run_name=mine", "export=none"]
BERT = [*SMALL["bert"], "training.epochs=2"]  # with word vectors of which some rows learn
RUNS = {
    "adafactor": ["optimizer=adafactor", "optimizer.lr=0.05"],
    "lion": ["optimizer=lion", "optimizer.lr=0.003", "schedule=inverse_sqrt"],
    "muon": ["optimizer=muon", "optimizer.lr=0.01", "schedule=wsd"],
    "schedule_free": ["optimizer=schedule_free", "optimizer.lr=0.02", "schedule=constant", "schedule.warmup_steps=3"],
    "ema": ["averaging=ema", "optimizer.lr=0.01", "schedule=one_cycle"],
    "swa": ["averaging=swa", "averaging.start_ratio=0.4", "averaging.every=2", "optimizer.lr=0.01", "schedule=cosine_restarts"],
    "swa_sgd": ["averaging=swa", "averaging.start_ratio=0", "optimizer=sgd", "optimizer.lr=1", "schedule=polynomial"],
    "bert_ema": [*BERT, "averaging=ema", "training.layer_drop=0.4", "model.num_layers=2"],
    "bert_adafactor": [*BERT, "optimizer=adafactor"],
    "bert_schedule_free": [*BERT, "optimizer=schedule_free", "schedule=constant", "training.layer_drop=0.4"],
}
AVERAGED = ("schedule_free", "ema", "swa", "swa_sgd", "bert_ema", "bert_schedule_free")


def command(name: str) -> list[str]:
    model = [] if name.startswith("bert") else SMALL["lstm"]
    return [*model, *COMMON, *LASTING, *RUNS[name]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a run that nobody interrupts, by its name."""
    made: dict[str, Folder] = {}

    def run(name: str) -> Folder:
        if name not in made:
            made[name] = Folder(tmp_path_factory.mktemp(name))
            write_rows(made[name] / "reviews.csv", sentences(160))
            made[name].ok("train", *command(name))
        return made[name]

    return run


def checkpoints(folder: Folder) -> Path:
    return folder.latest("mine") / "checkpoints"


@pytest.mark.parametrize("name", RUNS)
def test_a_resume_is_exact(whole, tmp_path: Path, name: str):
    """From a checkpoint in the middle of it, or for swa from one before the average begins, too."""
    done = whole(name)
    for step in (4, 12) if name == "swa" else (8,):
        folder = done.copy(tmp_path / str(step))
        run = folder.latest("mine")
        (run / "result.json").unlink()
        for path in (run / "checkpoints").glob("step-*"):
            if int(path.name[5:]) > step:
                shutil.rmtree(path)
        assert f"after step {step}" in folder.ok("train", *command(name)).err
        for path in sorted(checkpoints(done).glob("step-*")):
            files = sorted(file.name for file in path.glob("*.safetensors"))
            assert files == sorted(file.name for file in (run / "checkpoints" / path.name).glob("*.safetensors"))
            for file in files:
                assert sha256(path / file) == sha256(run / "checkpoints" / path.name / file), f"{path.name}/{file}"
        logs = [[e for e in read_lines(r / "metrics.jsonl") if e["event"] == "evaluation"] for r in (run, done.latest("mine"))]
        assert logs[0] == logs[1] and step_losses(run) == step_losses(done.latest("mine"))


@pytest.mark.parametrize("name", AVERAGED)
def test_the_average_is_what_is_kept_and_judged(whole, name: str):
    """The newest weights lie beside it, with a row for each token that learns."""
    folder = whole(name)
    latest = checkpoints(folder) / "latest"
    kept, newest = load_file(latest / "model.safetensors"), load_file(latest / "newest.safetensors")
    assert set(newest) <= set(kept) and any(kept[n].shape == w.shape and not torch.equal(kept[n], w) for n, w in newest.items())
    told = read(folder.latest("mine") / "result.json")["metrics"]["loss"]
    folder.ok("evaluate", str(folder.latest("mine")), "split=validation")
    assert read(folder.latest("mine") / "evaluation" / "validation" / "metrics.json")["loss"] == pytest.approx(told, rel=1e-5)


def test_swa_is_the_mean_of_what_was_saved(whole):
    """Of the newest weights of the steps that count: each is in a checkpoint."""
    name = "swa_mean"
    RUNS[name] = ["averaging=swa", "averaging.start_ratio=0.5", "averaging.every=4", "training.save_every=1"]
    try:
        folder = whole(name)
    finally:
        del RUNS[name]
    total = read(folder.latest("mine") / "result.json")["total_steps"]
    first = -(-total // 2)
    counted = [
        load_file(checkpoints(folder) / f"step-{step + 1:06d}" / "newest.safetensors") for step in range(first, total, 4)
    ]
    kept = load_file(checkpoints(folder) / "latest" / "model.safetensors")
    assert len(counted) > 2 and not (checkpoints(folder) / f"step-{first:06d}" / "newest.safetensors").exists()
    for weight, value in kept.items():
        assert torch.allclose(value, torch.stack([w[weight] for w in counted]).mean(0), atol=1e-6), weight


def test_adafactor_takes_whole_tables(whole):
    """AdamW and the others let those rows learn that the data reads."""
    table = "bert.embeddings.word_embeddings.weight"
    state = load_file(checkpoints(whole("bert_adafactor")) / "latest" / "optimizer.safetensors")
    assert f"{table}/rows" not in state and state[f"{table}/row_var"].shape[1] == 1
    assert f"{table}/rows" in load_file(checkpoints(whole("bert_ema")) / "latest" / "optimizer.safetensors")


def test_lora_averages_the_updates(reviews: Folder):
    reviews.ok("train", *SMALL["bert"], *COMMON, "training.epochs=1", "run_name=base")
    args = ["model=bert", "model.pretrained=runs/base/latest/checkpoints/best", "tuning=lora", "averaging=ema"]
    reviews.ok("train", *args, *COMMON, "training.epochs=2", "run_name=mine")
    latest = reviews.latest("mine") / "checkpoints" / "latest"
    learned, newest = load_file(latest / "learned.safetensors"), load_file(latest / "newest.safetensors")
    assert learned.keys() == newest.keys() and any("lora_B" in n and learned[n].ne(newest[n]).any() for n in learned)
    reviews.ok("evaluate", "runs/mine/latest")


def test_plan_counts_what_they_keep(reviews: Folder):
    """A checkpoint is larger by the newest weights."""
    told = []
    for averaging in ("none", "swa"):
        args = [*SMALL["lstm"], "model.hidden_size=200", *COMMON, "training.max_steps=2", f"averaging={averaging}"]
        told.append(float(reviews.ok("plan", *args).out.split("a checkpoint")[1].split(" MB")[0].strip(" │")))
    assert told[1] > told[0]


@pytest.mark.parametrize("verb", ["train", "plan"])
def test_a_missing_package_is_told_before_anything_is_made(reviews: Folder, monkeypatch: pytest.MonkeyPatch, verb: str):
    from llmtune.training import optimizers

    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    refused = reviews(verb, *SMALL["lstm"], *COMMON, "optimizer=schedule_free", "schedule=constant")
    assert refused.code == 5 and "llmtune[optimizers]" in refused.err and not list(reviews.path.glob("runs/*"))


def test_several_processes_and_layer_drop_do_not_go_together(reviews: Folder, monkeypatch: pytest.MonkeyPatch):
    from llmtune.training import distributed

    made = distributed.Ranks.__init__

    def two(self, hardware):
        made(self, hardware)
        self.size = 2

    monkeypatch.setattr(distributed.Ranks, "__init__", two)
    refused = reviews("train", *SMALL["bert"], *COMMON, "training.layer_drop=0.1")
    assert refused.code == 2 and "training.layer_drop" in refused.err
