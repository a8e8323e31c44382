"""Every way to shape a training, each in a run of a few steps, told by what it leaves in the log and on disk."""

import math
from pathlib import Path

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, step_losses, write_rows

LSTM = [*SMALL["lstm"], "data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", "run_name=mine"]


def trained(folder: Folder, *args: str) -> tuple[Path, dict, list[dict], list[dict]]:
    """The run, its result, its steps and its evaluations."""
    folder.ok("train", *LSTM, *args)
    events = read_lines(folder.latest("mine") / "metrics.jsonl")
    steps, evaluations = ([e for e in events if e["event"] == kind] for kind in ("step", "evaluation"))
    return folder.latest("mine"), read(folder.latest("mine") / "result.json"), steps, evaluations


def kept(run: Path) -> list[int]:
    return sorted(int(p.name[5:]) for p in (run / "checkpoints").glob("step-*"))


def test_training_stops_early_and_the_best_is_kept(reviews: Folder):
    """A rate that destroys what was learned: the first evaluation stays the best."""
    run, result, steps, evaluations = trained(
        reviews,
        "training.epochs=20",
        "training.early_stopping_patience=2",
        "optimizer=sgd",
        "optimizer.lr=50",
        "schedule=constant",
    )
    assert result["stopped_early"] and result["steps"] < result["total_steps"] == 100
    best = result["best_step"]
    since = [e for e in evaluations if e["step"] > best]
    assert len(since) == 2 and result["steps"] == steps[-1]["step"] == since[-1]["step"]
    assert all(e["metrics"]["accuracy"] <= result["value"] for e in since)
    assert (run / "checkpoints" / "best").readlink().name == f"step-{best:06d}"
    assert (run / "checkpoints" / "latest").readlink().name == f"step-{result['steps']:06d}"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["training.save_every=3", "training.keep_checkpoints=2"], [9, 10]),
        (["training.keep_checkpoints=1"], [10]),
        (["training.save_every=4", "training.keep_checkpoints=99"], [4, 5, 8, 10]),
        (["training.eval_every=3", "training.keep_checkpoints=99"], [3, 6, 9, 10]),
    ],
)
def test_which_checkpoints_are_kept(reviews: Folder, args: list[str], expected: list[int]):
    run, result, _, evaluations = trained(reviews, "training.epochs=2", *args)
    assert kept(run) == sorted({*expected, result["best_step"]})
    every = 3 if "training.eval_every=3" in args else 5
    assert [e["step"] for e in evaluations] == sorted({*range(every, 11, every), 10})


@pytest.mark.parametrize(
    ("args", "num_steps", "num_evaluations"),
    [
        (["training.max_steps=7"], 7, 2),
        (["training.epochs=null", "training.max_steps=12"], 12, 3),
        (["training.epochs=.5"], 2, 1),
        (["training.epochs=1.4"], 7, 2),
        (["training.epochs=1", "training.batch_size=160"], 1, 1),
        (["training.epochs=1", "training.batch_size=1000"], 1, 1),
        (["training.epochs=1", "training.batch_size=150"], 2, 1),
    ],
)
def test_how_long_it_takes(reviews: Folder, args: list[str], num_steps: int, num_evaluations: int):
    _, result, steps, evaluations = trained(reviews, *args)
    assert result["steps"] == result["total_steps"] == num_steps == steps[-1]["step"] == len(steps)
    assert len(evaluations) == num_evaluations and evaluations[-1]["step"] == num_steps


def test_micro_batches_change_nothing_but_memory(reviews: Folder):
    ways = (["training.gradient_accumulation_steps=1"], ["training.gradient_accumulation_steps=5"])
    losses = [step_losses(trained(reviews, "model.dropout=0", "training.epochs=2", *way)[0]) for way in ways]
    assert len(losses[0]) == 10
    for (step, one), (same_step, five) in zip(*losses, strict=True):
        assert step == same_step and five == pytest.approx(one, rel=1e-4)


def test_a_token_budget(reviews: Folder):
    _, result, steps, _ = trained(reviews, "training.max_tokens_per_batch=100", "training.epochs=2")
    assert result["steps"] == result["total_steps"] == len(steps) > 2 * 160 * 4 / 100  # no row is shorter than 4 tokens
    assert result["padding_share"] < 0.2


def test_similar_lengths_share_a_batch(reviews: Folder):
    shares = [
        trained(reviews, "training.epochs=1", f"training.group_by_length={way}")[1]["padding_share"]
        for way in ("true", "false")
    ]
    assert shares[0] < shares[1] / 2


@pytest.mark.parametrize(
    ("args", "factors"),
    [
        (["schedule=constant"], [1] * 10),
        (["schedule=constant", "schedule.warmup_steps=4"], [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        (["schedule=linear", "schedule.warmup_ratio=0"], [1 - i / 10 for i in range(10)]),
        (
            ["schedule=linear", "schedule.warmup_ratio=.2", "schedule.min_lr_ratio=.5"],
            [0.5, 1] + [1 - i / 16 for i in range(8)],
        ),
        (["schedule=cosine", "schedule.warmup_ratio=0"], [0.5 + 0.5 * math.cos(math.pi * i / 10) for i in range(10)]),
    ],
)
def test_schedules(reviews: Folder, args: list[str], factors: list[float]):
    _, _, steps, _ = trained(reviews, "training.epochs=2", "optimizer.lr=.02", *args)
    assert [e["lr"] for e in steps] == pytest.approx([0.02 * f for f in factors], rel=1e-6)


@pytest.mark.parametrize(
    "args",
    [
        ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.lr=1"],
        ["optimizer=adam"],
        ["optimizer=adamw", "optimizer.beta2=.9"],
        ["optimizer=adafactor", "optimizer.lr=.2"],
        ["optimizer=lion", "optimizer.lr=.003"],
        ["optimizer=muon"],
        ["optimizer=schedule_free", "optimizer.lr=.05"],
    ],
)
def test_optimizers_learn(reviews: Folder, args: list[str]):
    args = ["optimizer.lr=.02", *args]
    _, _, steps, _ = trained(reviews, "training.epochs=6", "schedule=constant", "training.batch_size=16", *args)
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]


@pytest.mark.parametrize("model", ["lstm", "bert"])
def test_bf16_on_the_cpu(reviews: Folder, model: str):
    args = [*SMALL[model], *LSTM[len(SMALL["lstm"]) :], "training.epochs=1", "hardware=cpu", "hardware.num_threads=1"]
    losses = {}
    for precision in ("fp32", "bf16"):
        reviews.ok("train", *args, f"hardware.precision={precision}")
        losses[precision] = [loss for _, loss in step_losses(reviews.latest("mine"))]
    assert losses["bf16"] != losses["fp32"] and losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    reviews.ok("export", "runs/mine/latest", "export=huggingface")


def test_fp16_needs_a_gpu(reviews: Folder):
    refused = reviews("train", *LSTM, "hardware=cpu", "hardware.precision=fp16")
    assert refused.code == 5 and "bf16" in refused.err and not (reviews / "runs").exists()


def test_no_validation_rows(reviews: Folder):
    args = ["split.validation_fraction=0", "split.test_fraction=0", "training.epochs=1"]
    told = reviews.ok("run", *LSTM, *args)
    run, result = reviews.latest("mine"), read(reviews.latest("mine") / "result.json")
    assert "no validation rows" in told.err and result["value"] is None
    assert (run / "checkpoints" / "best").readlink() == (run / "checkpoints" / "latest").readlink()
    assert not (run / "evaluation").exists() and read(run / "export" / "parity.json")["exports"]["onnx"]["rows_from"] == "train"


def test_a_loss_that_is_no_number_stops_before_the_update(reviews: Folder):
    refused = reviews("train", *LSTM, "optimizer=sgd", "optimizer.lr=1e38", "schedule=constant", "training.max_grad_norm=null")
    assert refused.code == 6 and "Traceback" not in refused.err
    run = reviews.latest("mine")
    assert len(read(run / "diverged.json")["rows"]) == 32 and not (run / "result.json").exists()


def test_files_of_their_own_for_validation_and_test(folder: Folder):
    for name, num_rows in (("reviews", 100), ("validation", 30), ("test", 20)):
        write_rows(folder / f"{name}.csv", sentences(num_rows, seed=num_rows))
    folder.ok(
        "run", *LSTM, "data.validation_file=validation.csv", "data.test_file=test.csv", "training.epochs=1", "export=none"
    )
    run = folder.latest("mine")
    assert len(read_lines(run / "evaluation" / "test" / "predictions.jsonl")) == 20
    assert [e["step"] for e in read_lines(run / "metrics.jsonl") if e["event"] == "step"] == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["bert", "gpt"])
def test_activations_computed_twice_change_nothing(reviews: Folder, name: str, monkeypatch: pytest.MonkeyPatch):
    """Dropout included: the second pass draws what the first drew."""
    from transformers import modeling_utils

    calls = []
    real = modeling_utils.checkpoint
    monkeypatch.setattr(modeling_utils, "checkpoint", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    task = ["task=causal_lm", "data.label_column=null"] if name == "gpt" else []
    args = ["train", *SMALL[name], *task, "data.train_file=reviews.csv", "training.max_steps=6", "training.log_every=1"]
    for kept in ("false", "true"):
        calls.clear()
        reviews.ok(*args, f"training.activation_checkpointing={kept}", f"run_name=run-{kept}")
        assert bool(calls) == (kept == "true")
    assert step_losses(reviews.latest("run-true")) == step_losses(reviews.latest("run-false"))


def test_activation_checkpointing_of_an_lstm_is_a_mistake(reviews: Folder):
    refused = reviews("train", *LSTM, "training.activation_checkpointing=true")
    assert refused.code == 2 and "training.activation_checkpointing" in refused.err


def test_rows_of_a_block_that_are_isolated(reviews: Folder):
    """The whole way: train, evaluate, and the run tells what it is."""
    args = [*SMALL["gpt"], "task=causal_lm", "data.label_column=null", "data.train_file=reviews.csv", "tokenizer.max_length=24"]
    losses = {}
    for apart in ("true", "false"):
        reviews.ok("train", *args, f"task.isolate_documents={apart}", "training.max_steps=6", f"run_name=apart-{apart}")
        run = reviews.latest(f"apart-{apart}")
        reviews.ok("evaluate", str(run))
        reviews.ok("export", str(run), "export=huggingface")
        losses[apart] = read(run / "evaluation" / "test" / "metrics.json")["loss"]
        assert read(run / "checkpoints" / "best" / "llmtune.json")["task"].get("isolate_documents", False) is (apart == "true")
    assert losses["true"] != losses["false"]
