"""A run that is killed at any step or place, and resumed, ends as the run that nobody killed: bit for bit."""

import functools
import json
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from scripts.bench import kills
from tests.conftest import ROOT
from tests.faults.deaths import Death, Server
from tests.pipeline.conftest import read, read_lines, sha256

STEPS = 40
TIMED = ("train_seconds", "tokens_per_second", "padding_share", "wait_share", "peak_memory")
COMMON = [
    "data.train_file=rows.csv",
    "seed=7",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=24",
    "training.epochs=null",
    f"training.max_steps={STEPS}",
    "training.batch_size=10",
    "training.gradient_accumulation_steps=2",
    "training.max_grad_norm=0.5",
    "training.log_every=1",
    "schedule=linear",
    "schedule.warmup_steps=8",
    "optimizer.lr=0.01",
    "evaluation.batch_size=4",
    "hardware=cpu",
    "hardware.num_threads=1",
    "export=none",
]
MODELS = {name: ["train", *args, *COMMON, "hardware.precision=fp32"] for name, args in kills.MODELS.items()}
MODELS["averaged"] = [*MODELS["lstm"], "averaging=ema"]
ALL_KEPT = ["training.save_every=1", "training.keep_checkpoints=100"]
SOME_KEPT = ["training.save_every=5", "training.keep_checkpoints=2"]
RECIPE = """# llmtune run +recipe=two
finetune:
  optimizer: {lr: 0.002}
  training: {max_steps: 20}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("cache"))
    yield server
    server.process.stdin.close()
    server.process.wait(30)


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`whole(*args)`: the folder of a run that nobody kills, with the checkpoints of all its steps."""

    @functools.cache
    def run(*args: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        fill(folder)
        server(folder, [*args, *ALL_KEPT])
        return folder

    return run


def fill(folder: Path) -> None:
    """Put rows and a recipe into a folder."""
    kills.write_rows(folder)
    (folder / "recipes").mkdir()
    (folder / "recipes" / "two.yaml").write_text(RECIPE)


def run_in(folder: Path) -> Path:
    """The one run of a folder: a resume never starts a second one."""
    (run,) = [path for path in folder.glob("runs/*/2*") if path.is_dir()]
    return run


def end_of(run: Path) -> dict[str, Any]:
    """What a finished run is compared by."""
    events = read_lines(run / "metrics.jsonl")
    steps = [e for e in events if e["event"] == "step"]
    links = {link: (run / "checkpoints" / link).resolve() for link in ("latest", "best")}
    files = [file for step in links.values() for file in (*sorted(step.glob("*.safetensors")), step / "trainer.json")]
    return {
        "losses": [(e["step"], e["epoch"], e["loss"].hex(), e["lr"].hex(), e["grad_norm"].hex()) for e in steps],
        "evaluations": [e for e in events if e["event"] == "evaluation"],
        "links": {link: step.name for link, step in links.items()},
        "files": [(file.name, sha256(file)) for file in files],
        "result": {k: v for k, v in read(run / "result.json").items() if k not in TIMED},
    }


def assert_equal_ends(run: Path, expected: Path) -> None:
    ours, theirs = end_of(run), end_of(expected)
    assert [step for step, *_ in theirs["losses"]] == list(range(1, theirs["result"]["steps"] + 1))
    is_averaged = "averaging:\n  type: ema" in (expected / "config.yaml").read_text()
    assert len(theirs["files"]) == (8 if is_averaged else 6)  # of two checkpoints, the newest weights beside an average
    for what, value in theirs.items():
        assert ours[what] == value, what
    assert not list((run / "checkpoints").glob(".*"))


def cut(whole: Path, folder: Path, step: int) -> None:
    """Copy a folder with a run as a kill leaves it soon after the checkpoint of a step: the log is ahead of it."""
    later = shutil.ignore_patterns("result.json", "evaluation", *(f"step-{k:06d}" for k in range(step + 1, STEPS + 1)))
    shutil.copytree(whole, folder, symlinks=True, ignore=later, dirs_exist_ok=True)
    run = run_in(folder)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = "".join(line for line in lines if json.loads(line)["step"] <= step + 3)
    (run / "metrics.jsonl").write_text(kept[:-20], encoding="utf-8")
    (run / "checkpoints" / "latest").unlink()
    (run / "checkpoints" / "latest").symlink_to(f"step-{step:06d}")
    best = run / "checkpoints" / "best"
    if not best.exists():
        best.unlink()


def resumed_after(told: str) -> int | None:
    """The step that a command says it goes on after; None if it begins, or died before."""
    found = re.search(r"resuming .*? after step (\d+) of", " ".join(told.split()))
    return int(found[1]) if found else None


FEW = {"lstm": (1, 13, 40), "bert": (6, 26), "gpt": (20, 39)}


@pytest.mark.parametrize(
    ("model", "step"),
    [
        pytest.param(model, step, marks=[] if step in few else pytest.mark.slow)
        for model, few in FEW.items()
        for step in range(1, STEPS + 1)
    ],
)
def test_a_resume_at_each_step(server: Server, whole: Callable[..., Path], tmp_path: Path, model: str, step: int):
    """On no or two loader workers; the run itself had none."""
    args = MODELS[model]
    cut(whole(*args), tmp_path, step)
    told = server(tmp_path, [*args, *ALL_KEPT, f"hardware.num_workers={step % 2 * 2}"])
    assert resumed_after(told) == step
    assert_equal_ends(run_in(tmp_path), run_in(whole(*args)))
    shutil.rmtree(run_in(tmp_path))  # 120 of them are a gigabyte


TRAINER = "llmtune.training.trainer:Trainer"
CHECKPOINT = "llmtune.training.checkpoint"
UPDATE = "torch.optim:AdamW.step"
EXCHANGE = "llmtune.training.averaging:Averages._exchange"  # twice in a save, twice in an evaluation
FINISH = "llmtune.training.run_dir:finish"
MANIFEST = "llmtune.training.manifest:write"
LM_LOSS = "llmtune.tasks.language_modeling:LanguageModelTask.loss"
LOSS = "llmtune.tasks.classification:ClassificationTask.loss"
SCORE = "llmtune.tasks.classification:ClassificationTask.score"
# Where each attempt dies, and the step after which the next one goes on. A step has two calls of the loss, an evaluation four
# of the score. There are checkpoints at each fifth step and at evaluations: after 13, 26, 39 and 40; gpt: each eighth step.
PLACES: dict[tuple[str, str], list[tuple[Death, int | None]]] = {
    ("the first save", "lstm"): [
        (Death(MANIFEST, 1), None),
        (Death(MANIFEST, 1, True), None),
        (Death(f"{CHECKPOINT}:sync", 1), 5),
    ],
    ("a link", "lstm"): [(Death("pathlib:Path.symlink_to", 2, True), 5), (Death("pathlib:Path.symlink_to", 4, True), 13)],
    ("the rehearsal", "lstm"): [(Death("os:posix_fallocate", 1, True), None), (Death("os:posix_fallocate", 1, True), None)],
    ("warm-up", "lstm"): [(Death(LOSS, 14), 5), (Death(UPDATE, 2, True), 5)],
    ("a window", "lstm"): [(Death(LOSS, 2 * 19), 15), (Death(LOSS, 2 * 7), 20)],
    ("a window", "bert"): [(Death(LM_LOSS, 2 * 3), None), (Death(LM_LOSS, 2 * 28), 26)],
    ("a window", "gpt"): [(Death(LM_LOSS, 2 * 12), 10), (Death(LM_LOSS, 2 * 19), 25)],
    ("an epoch's end", "lstm"): [
        (Death("llmtune.training.pace:Pace.note", 13), 10),
        (Death(f"{TRAINER}._save", 1, True), 13),
        (Death("llmtune.training.plan:plan_epoch", 2), 26),
        (Death(LOSS, 1), 26),
    ],
    ("an evaluation", "lstm"): [
        (Death(f"{TRAINER}._evaluate", 1), 13),
        (Death(SCORE, 3), 13),
        (Death(SCORE, 4 + 2), 26),
        (Death(f"{TRAINER}._point_best", 2), 26),
    ],
    ("a resume", "bert"): [
        (Death(LM_LOSS, 2 * 18), 15),
        (Death("llmtune.training.optimizers:load_state_tensors", 1, True), 15),
        (Death("llmtune.training.run_log:_line", 3), 15),
        (Death("llmtune.training.trainer:windows", 1), 15),
        (Death(LM_LOSS, 1), 15),
    ],
    ("a rotation", "gpt"): [
        (Death(f"{CHECKPOINT}:_trash", 2), 16),
        (Death(f"{CHECKPOINT}:rotate", 3, True), 24),
        (Death(f"{CHECKPOINT}:point", 5), 25),
    ],
    ("an exchange", "averaged"): [
        (Death(EXCHANGE, 1, True), None),
        (Death(EXCHANGE, 3, True), 5),
        (Death(EXCHANGE, 5, True), 13),
    ],
    ("the end", "lstm"): [(Death(f"{TRAINER}._evaluate", 4), 40), (Death(FINISH, 1), 40), (Death(FINISH, 1), 40)],
}


@pytest.mark.parametrize(("place", "model"), PLACES)
def test_kills_in(server: Server, whole: Callable[..., Path], tmp_path: Path, place: str, model: str):
    args, reached = [*MODELS[model], *SOME_KEPT], None
    fill(tmp_path)
    for number, (death, reaches) in enumerate(PLACES[place, model]):
        told = server(tmp_path, [*args, f"hardware.num_workers={number % 2 * 2}"], death)
        assert resumed_after(told) in (reached, None), death  # it may die before it tells
        reached = reaches
    assert resumed_after(server(tmp_path, args)) == reached
    assert_equal_ends(run_in(tmp_path), run_in(whole(*MODELS[model])))


def test_ten_kills_in_one_epoch(server: Server, whole: Callable[..., Path], tmp_path: Path):
    args = [*MODELS["lstm"], "training.save_every=1", "training.keep_checkpoints=1"]
    fill(tmp_path)
    told = [server(tmp_path, args, Death(UPDATE, 2, step % 2 == 1)) for step in range(1, 11)]
    assert [resumed_after(text) for text in told] == [None, *range(1, 10)]
    assert resumed_after(server(tmp_path, args)) == 10
    assert_equal_ends(run_in(tmp_path), run_in(whole(*MODELS["lstm"])))


# What is trained, and the steps after which it is cut; None is the last one.
VARIANTS: dict[str, tuple[list[str], tuple[int | None, ...]]] = {
    "bf16": ([*MODELS["bert"], "hardware.precision=bf16"], (7, 26)),
    "early stopping": (
        [*MODELS["lstm"], "training.early_stopping_patience=2", "training.eval_every=4", "training.best_metric=loss"],
        (4, None),
    ),
    "token budget": ([*MODELS["lstm"], "training.max_tokens_per_batch=100"], (5, 20)),
    "compiled": ([*MODELS["gpt"], "hardware.compile=true"], (13,)),
}


@pytest.mark.parametrize("variant", [pytest.param(v, marks=pytest.mark.slow if v == "compiled" else []) for v in VARIANTS])
def test_variants(server: Server, whole: Callable[..., Path], tmp_path: Path, variant: str):
    args, steps = VARIANTS[variant]
    ends_with_a_resume_each(server, whole(*args), tmp_path, args, steps)
    assert read(run_in(whole(*args)) / "result.json")["stopped_early"] == (variant == "early stopping")


def test_low_rank_updates(server: Server, whole: Callable[..., Path], tmp_path: Path):
    base = [*MODELS["bert"], "task=classification", "data.label_column=label", "training.max_steps=8"]
    path = run_in(whole(*base))
    args = ["finetune", str(path), *COMMON, "hardware.precision=fp32", "tuning=lora"]
    ends_with_a_resume_each(server, whole(*args), tmp_path, args, (6, 33))
    assert (run_in(tmp_path / "1") / "checkpoints" / "latest" / "learned.safetensors").is_file()


def ends_with_a_resume_each(server: Server, whole: Path, folder: Path, args: list[str], steps: tuple[int | None, ...]) -> None:
    for number, step in enumerate(step or read(run_in(whole) / "result.json")["steps"] for step in steps):
        copy = folder / str(number)
        cut(whole, copy, step)
        told = server(copy, [*args, *ALL_KEPT, f"hardware.num_workers={number % 2 * 2}"])
        assert resumed_after(told) == step
        assert_equal_ends(run_in(copy), run_in(whole))


@pytest.mark.parametrize(
    ("deaths", "step"),
    [
        ([Death(LOSS, 2 * 18)], 15),
        ([Death(LOSS, 2 * (STEPS + 12))], 10),
        ([Death(LOSS, 2 * 18), Death("llmtune.commands.evaluate:evaluate_run", 1), Death(LOSS, 12), Death(FINISH, 1)], 20),
    ],
    ids=["first", "second", "both and between"],
)
def test_kills_in_either_stage(server: Server, whole: Callable[..., Path], tmp_path: Path, deaths: list[Death], step: int):
    """Of `llmtune run` with a finetune stage, which starts from the best checkpoint of the first."""
    args = ["run", "+recipe=two", *MODELS["lstm"][1:]]
    fill(tmp_path)
    for death in deaths:
        server(tmp_path, [*args, *SOME_KEPT], death)
    assert resumed_after(server(tmp_path, [*args, *SOME_KEPT])) == step
    for ours, theirs in zip(stages_in(tmp_path), stages_in(whole(*args)), strict=True):
        assert_equal_ends(ours, theirs)
        assert read(ours / "evaluation" / "test" / "metrics.json") == read(theirs / "evaluation" / "test" / "metrics.json")


def stages_in(folder: Path) -> list[Path]:
    return [run_in(folder), *sorted(run_in(folder).glob("finetune*"))]


@pytest.mark.parametrize("max_tokens", [None, 4096])
def test_a_late_step_is_found_as_fast_as_an_early_one(max_tokens: int | None):
    """Step 100,000 of 20,000 rows, with the place that a checkpoint holds."""
    from llmtune.config.sections.training import TrainingConfig
    from llmtune.training.plan import TrainPlan

    values = yaml.safe_load((ROOT / "configs" / "training" / "default.yaml").read_text(encoding="utf-8"))
    changes = {"epochs": None, "max_steps": 200_000, "max_tokens_per_batch": max_tokens}
    training = TrainingConfig.model_validate({**values, **changes})
    lengths_N = np.random.default_rng(0).integers(4, 129, 20_000)

    place_of = functools.cache(TrainPlan(lengths_N, training, seed=0).place_of)

    def seconds(start: int) -> float:
        place, began = place_of(start), time.process_time()
        plan = TrainPlan(lengths_N, training, seed=0)
        plan.remember(*place)
        assert next(plan.steps(start)).step == start
        return time.process_time() - began

    early, late = (statistics.median(seconds(start) for _ in range(3)) for start in (10, 100_000))
    print(f"first step of a plan: {early * 1e3:.1f} ms at step 10, {late * 1e3:.1f} ms at step 100,000")
    assert late < 20 * early
