"""On a CUDA device: training, exact resume, and the same answers as on the CPU."""

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, sha256, write_rows

pytestmark = pytest.mark.gpu

TASKS = {
    "lstm": ["task=classification", "augment=[drop,swap]"],
    "bert": ["task=masked_lm", "data.label_column=null"],
    "gpt": ["task=causal_lm", "data.label_column=null"],
}


def train(folder: Folder, model: str, *args: str) -> None:
    common = ["data.train_file=rows.csv", "run_name=a", "training.batch_size=16", "tokenizer.min_frequency=1", "hardware=cuda"]
    if model != "lstm":
        common.append("tokenizer.vocab_size=400")
    folder.ok("train", *common, *SMALL[model], *TASKS[model], *args)


@pytest.fixture
def rows(folder: Folder) -> Folder:
    write_rows(folder / "rows.csv", sentences(200))
    return folder


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("model", TASKS)
def test_the_loss_falls(rows: Folder, model, precision):
    train(rows, model, "training.epochs=6", f"hardware.precision={precision}", "training.log_every=1")
    losses = [event["loss"] for event in read_lines(rows.latest("a") / "metrics.jsonl") if event["event"] == "step"]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("model", TASKS)
def test_a_resume_is_exact(rows: Folder, model):
    """The newest checkpoint is removed, as if a kill had come before it."""
    args = ["training.epochs=2", "training.save_every=5", "training.keep_checkpoints=9", "hardware.num_workers=2"]
    train(rows, model, *args)
    run = rows.latest("a")
    whole = sha256(run / "checkpoints" / "latest" / "model.safetensors")
    for step in sorted((run / "checkpoints").glob("step-*"))[1:]:
        step.rename(run / step.name)
    for name in ("best", "latest"):
        (run / "checkpoints" / name).unlink()
    (run / "result.json").unlink()
    train(rows, model, *args)
    assert rows.latest("a") == run
    assert sha256(run / "checkpoints" / "latest" / "model.safetensors") == whole


def test_the_cpu_gives_the_same_answers(rows: Folder):
    train(rows, "bert", "training.epochs=2", "hardware.precision=fp32", "task=classification", "data.label_column=label")
    run = rows.latest("a")
    for device in ("cuda", "cpu"):
        rows.ok("evaluate", str(run), f"hardware={device}")
        found = read(run / "evaluation" / "test" / "metrics.json")
        if device == "cuda":
            expected = found
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert found["confusion_matrix"] == expected["confusion_matrix"]
