"""`llmtune run`: what is finished is not done twice, what is missing or out of date is done again."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, write_rows

ARGS = [*SMALL["lstm"], "data.train_file=reviews.csv", "training.epochs=2", "training.keep_checkpoints=9", "run_name=mine"]
RECIPE = """# llmtune run +recipe=mine
defaults:
  - override /model: lstm
data:
  train_file: reviews.csv
model:
  embedding_size: 16
  hidden_size: 16
optimizer:
  lr: 0.02
training:
  epochs: 6
finetune:
  data:
    train_file: more.csv
  optimizer:
    lr: 0.0005
  training:
    epochs: 1
"""
STAGES = {
    "training": "checkpoints/best/model.safetensors",
    "result": "result.json",
    "evaluation": "evaluation/test/metrics.json",
    "huggingface": "export/huggingface/model.safetensors",
    "onnx": "export/onnx/model.onnx",
}


def times(run: Path) -> dict[str, int]:
    return {stage: (run / file).stat().st_mtime_ns for stage, file in STAGES.items() if (run / file).exists()}


def changed(before: dict[str, int], run: Path) -> set[str]:
    after = times(run)
    return {stage for stage in {**before, **after} if before.get(stage) != after.get(stage)}


def other_step(run: Path) -> Path:
    """A checkpoint that is not the best one."""
    best = (run / "checkpoints" / "best").readlink().name
    return next(p for p in (run / "checkpoints").glob("step-*") if p.name != best)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which `run` has been run."""
    place = Folder(tmp_path_factory.mktemp("once"))
    write_rows(place / "reviews.csv", sentences(200))
    place.ok("run", *ARGS)
    assert set(times(place.latest("mine"))) == set(STAGES)
    return place


@pytest.fixture
def done(once: Folder, tmp_path: Path) -> Folder:
    return once.copy(tmp_path)


@pytest.fixture(scope="module")
def two_stages_once(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The same of a recipe with a finetune section."""
    place = Folder(tmp_path_factory.mktemp("two-stages"))
    write_rows(place / "reviews.csv", sentences(200))
    write_rows(place / "more.csv", sentences(120, seed=5))
    (place / "recipes").mkdir()
    (place / "recipes" / "mine.yaml").write_text(RECIPE)
    place.ok("run", "+recipe=mine")
    return place


@pytest.fixture
def two_stages(two_stages_once: Folder, tmp_path: Path) -> Folder:
    return two_stages_once.copy(tmp_path)


def test_the_second_time_nothing_is_done(done: Folder):
    run = done.latest("mine")
    before = times(run)
    again = done.ok("run", *ARGS)
    assert done.latest("mine") == run and not changed(before, run)
    for words in ("training is done", "evaluation is done", "export is done"):
        assert words in again.err
    assert len(list((done / "runs" / "mine").iterdir())) == 2  # the run, and latest


@pytest.mark.parametrize(
    ("deleted", "redone"),
    [
        ("evaluation", {"evaluation"}),
        ("evaluation/test/metrics.json", {"evaluation"}),
        ("export", {"huggingface", "onnx"}),
        ("export/onnx", {"onnx"}),
        ("export/parity.json", {"huggingface", "onnx"}),
        ("checkpoints", {"training", "result"}),
        ("result.json", {"result"}),
    ],
)
def test_a_deleted_output_is_made_again_and_nothing_else(done: Folder, deleted: str, redone: set[str]):
    run = done.latest("mine")
    before, weights = times(run), (run / STAGES["training"]).read_bytes()
    log = [(e["step"], e.get("loss"), e.get("metrics")) for e in read_lines(run / "metrics.jsonl")]
    target = run / deleted
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    done.ok("run", *ARGS)
    assert changed(before, run) == redone
    assert set(times(run)) == set(STAGES) and (run / "export" / "parity.json").is_file()
    assert (run / STAGES["training"]).read_bytes() == weights
    assert [(e["step"], e.get("loss"), e.get("metrics")) for e in read_lines(run / "metrics.jsonl")] == log


def test_other_exports_are_made_and_the_others_stay(done: Folder):
    run = done.latest("mine")
    before = times(run)
    done.ok("run", *ARGS, "export.onnx.opset=17")
    assert changed(before, run) == {"onnx"}
    assert set(read(run / "export" / "parity.json")["exports"]) == {"huggingface", "onnx"}


def test_an_export_of_another_checkpoint_does_not_pass_for_the_best_one(done: Folder):
    run = done.latest("mine")
    done.ok("export", str(other_step(run)), "export=onnx")
    before = times(run)
    done.ok("run", *ARGS)
    assert changed(before, run) == {"onnx"}


def test_an_evaluation_of_other_rows_or_of_another_checkpoint_does_not_pass_for_the_test(done: Folder):
    run = done.latest("mine")
    before = times(run)
    write_rows(done / "test.csv", sentences(10, seed=3))
    done.ok("evaluate", str(run), "file=test.csv")
    done.ok("evaluate", str(other_step(run)))
    assert (run / "evaluation" / f"test-{other_step(run).name}" / "metrics.json").is_file()
    assert read_lines(run / "evaluation" / "test.csv" / "predictions.jsonl")[0]["text"] == sentences(10, seed=3)[0]["text"]
    assert not changed(before, run)


def test_other_rows_are_another_run(done: Folder):
    old = done.latest("mine")
    before = times(old)
    write_rows(done / "reviews.csv", sentences(260))
    done.ok("run", *ARGS)
    new = done.latest("mine")
    assert new != old and not changed(before, old)
    assert len(read_lines(new / "evaluation" / "test" / "predictions.jsonl")) == 26


def test_other_rows_do_not_pass_for_those_of_the_run(done: Folder):
    run = done.latest("mine")
    expected = read(run / "evaluation" / "test" / "metrics.json")
    write_rows(done / "reviews.csv", sentences(60, seed=9))
    done.ok("evaluate", str(run))  # the run's rows are still in the cache
    assert read(run / "evaluation" / "test" / "metrics.json") == expected
    shutil.rmtree(done / "cache")
    for verb in ("evaluate", "export"):
        refused = done(verb, str(run))
        assert refused.code == 3 and "not what the model was trained with" in refused.err
    done.ok("evaluate", str(run), "file=reviews.csv")
    write_rows(done / "reviews.csv", sentences(200))
    done.ok("evaluate", str(run))
    assert read(run / "evaluation" / "test" / "metrics.json") == expected


def test_two_stages(two_stages: Folder):
    first = two_stages.latest("mine")
    second = first / "finetune"
    assert set(times(first)) == {"training", "result", "evaluation"} and set(times(second)) == set(STAGES)
    assert len(read_lines(second / "evaluation" / "test" / "predictions.jsonl")) == 12
    assert read_lines(second / "metrics.jsonl")[0]["loss"] < read_lines(first / "metrics.jsonl")[0]["loss"]
    before = times(first), times(second)
    two_stages.ok("run", "+recipe=mine")
    assert (times(first), times(second)) == before
    two_stages.ok("evaluate", str(second), "split=validation")
    assert two_stages.ok("predict", str(second), stdin="a good film\n").out.count("\n") == 1


@pytest.mark.parametrize(
    ("deleted", "in_first", "in_second"),
    [
        ("finetune", set(), set(STAGES)),
        ("finetune/export", set(), {"huggingface", "onnx"}),
        ("evaluation", {"evaluation"}, set()),
    ],
)
def test_a_deleted_output_of_two_stages(two_stages: Folder, deleted: str, in_first: set[str], in_second: set[str]):
    first = two_stages.latest("mine")
    before = times(first), times(first / "finetune")
    shutil.rmtree(first / deleted)
    two_stages.ok("run", "+recipe=mine")
    assert (changed(before[0], first), changed(before[1], first / "finetune")) == (in_first, in_second)


@pytest.mark.parametrize("change", ["config", "data"])
def test_another_second_stage_leaves_the_first_as_it_is(two_stages: Folder, change: str):
    first = two_stages.latest("mine")
    before = times(first), times(first / "finetune")
    if change == "data":
        write_rows(two_stages / "more.csv", sentences(140, seed=6))
    more = ["finetune.training.epochs=2"] if change == "config" else []
    two_stages.ok("run", "+recipe=mine", *more)
    assert (times(first), times(first / "finetune")) == before
    assert set(times(first / "finetune-2")) == set(STAGES)
    again = times(first / "finetune-2")
    two_stages.ok("run", "+recipe=mine", *more)
    assert times(first / "finetune-2") == again and not (first / "finetune-3").exists()


def test_run_takes_up_what_train_began(reviews: Folder):
    reviews.ok("train", *ARGS)
    run = reviews.latest("mine")
    before = times(run)
    reviews.ok("run", *ARGS)
    assert changed(before, run) == {"evaluation", "huggingface", "onnx"}


def test_a_finished_run_of_the_other_verbs_is_not_trained_again(reviews: Folder):
    reviews.ok("train", *ARGS)
    first = reviews.latest("mine")
    result = read(first / "result.json")
    named = reviews.ok("train", *ARGS, f"training.resume={first}")
    assert "training is done" in named.err and read(first / "result.json") == result
    reviews.ok("train", *ARGS)
    assert reviews.latest("mine") != first
