"""`llmtune average`: the mean of several runs, or of a run's checkpoints, is a run like any other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.conftest import SMALL, Folder, read, sentences, write_rows

COMMON = [*SMALL["lstm"], "tokenizer.min_frequency=1", "training.epochs=2", "export=none"]
GIVEN = ["data.train_file=reviews.csv", "data.validation_file=held.csv", "split.test_fraction=0.1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A base, three runs that start from it, and one with another split."""
    folder = Folder(tmp_path_factory.mktemp("soup"))
    write_rows(folder / "reviews.csv", sentences(160))
    write_rows(folder / "held.csv", sentences(60, seed=5))
    folder.ok("train", *COMMON, *GIVEN, "run_name=base", "training.keep_checkpoints=9", "training.save_every=3")
    for seed in (1, 2, 3):
        args = [*GIVEN, "export=none", "training.epochs=3", f"seed={seed}", f"run_name=r{seed}", f"optimizer.lr=0.0{seed}"]
        folder.ok("finetune", "runs/base/latest", *args)
    args = ["data.train_file=reviews.csv", "export=none", "seed=4", "run_name=r4"]
    folder.ok("finetune", "runs/base/latest", *args)
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "checkpoints" / "best" / "model.safetensors")


def assert_mean(folder: Folder, of: list[dict[str, torch.Tensor]]) -> None:
    for name, value in weights(folder.latest("average")).items():
        assert torch.allclose(value, torch.stack([other[name] for other in of]).mean(0), atol=1e-6), name


def test_the_mean_of_runs_is_a_run(runs: Folder):
    told = runs.ok("average", *(f"runs/r{i}/latest" for i in (1, 2, 3))).out
    assert "the average of 3" in told and told.count("accuracy") == 4
    assert_mean(runs, [weights(runs.latest(f"r{i}")) for i in (1, 2, 3)])
    made = runs.latest("average")
    result = read(made / "result.json")
    assert len(result["averaged"]) == 3 and result["how"] == "uniform"
    for verb, *rest in (("verify",), ("evaluate", "split=validation"), ("export", "export=huggingface")):
        runs.ok(verb, str(made), *rest)
    assert read(made / "evaluation" / "validation" / "metrics.json")["accuracy"] == pytest.approx(result["value"])
    assert runs.ok("predict", str(made), stdin="a good film\n").out
    runs.ok("finetune", str(made), *GIVEN, "training.max_steps=2", "run_name=on", "export=none")


def test_the_kept_checkpoints_of_a_run(runs: Folder):
    runs.ok("average", "runs/base/latest")
    kept = sorted((runs.latest("base") / "checkpoints").glob("step-*"))
    assert len(kept) > 3
    assert_mean(runs, [load_file(path / "model.safetensors") for path in kept])


def test_greedy_leaves_out_what_does_harm(runs: Folder, tmp_path: Path):
    """A run whose rate destroyed it."""
    runs.ok("finetune", "runs/base/latest", *GIVEN, "seed=9", "run_name=bad", "optimizer=sgd", "optimizer.lr=50", "export=none")
    args = ["runs/r1/latest", "runs/bad/latest/checkpoints/latest", "runs/r2/latest"]
    alone = [read(runs.latest(name) / "result.json")["value"] for name in ("r1", "r2")]
    told = runs.ok("average", *args, "how=greedy", "run_name=greedy").out
    result = read(runs.latest("greedy") / "result.json")
    assert result["value"] >= max(alone) and not any("/bad/" in name for name in result["averaged"])
    assert "left out" in told


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["runs/r1/latest", "runs/r4/latest", "how=greedy"], 3, ["train rows", "how=uniform"]),
        (["runs/r1/latest"], 4, ["one checkpoint only", "training.keep_checkpoints"]),
        (["runs/r1/latest", "runs/nowhere"], 4, ["nowhere"]),
        (["runs/r1/latest", "runs/r2/latest", "how=best"], 2, ["how", "greedy"]),
        (["runs/r1/latest", "runs/r2/latest", "run_name=../x"], 2, ["run_name"]),
        ([], 2, ["average needs RUN"]),
    ],
)
def test_mistakes(runs: Folder, args: list[str], code: int, words: list[str]):
    before = sorted(runs.path.rglob("*"))
    refused = runs("average", *args)
    assert refused.code == code and all(word in refused.err for word in words), refused.err
    assert sorted(runs.path.rglob("*")) == before


def test_other_labels_or_shapes_are_refused(runs: Folder):
    write_rows(runs / "other.csv", [{**row, "label": row["label"][:3]} for row in sentences(60)])
    runs.ok("train", *COMMON, "data.train_file=other.csv", "run_name=labels")
    runs.ok("train", *COMMON, *GIVEN, "model.hidden_size=8", "run_name=narrow")
    for name, word in (("labels", "labels"), ("narrow", "average models of one shape")):
        refused = runs("average", "runs/base/latest", f"runs/{name}/latest")
        assert refused.code == 4 and word in refused.err


def test_a_uniform_mean_over_other_splits_is_told(runs: Folder):
    assert "no measure" in runs.ok("average", "runs/r1/latest", "runs/r4/latest", "run_name=x").err
