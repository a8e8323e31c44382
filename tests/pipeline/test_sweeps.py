"""Sweeps over values, groups and recipes: one job for each point, and the table at the end, best first."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, sha256

COMMON = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.epochs=2", "run_name=swept"]
ON_CPU = ["hardware=cpu", "hardware.precision=fp32", "hardware.num_threads=1"]
RECIPE = """# llmtune train +recipe={name}
defaults:
  - override /model: lstm
data: {{train_file: reviews.csv, label_column: {column}}}
model: {{embedding_size: 16, hidden_size: 16}}
training: {{epochs: 1}}
"""


@pytest.fixture
def swept(reviews: Folder, command):
    """`llmtune ARGS` as a process, and sweep.json afterwards."""

    def run(*args: str) -> tuple[int, str, dict]:
        done = command(*args, *ON_CPU, env={"LLMTUNE_CACHE": str(reviews / "cache"), "OMP_NUM_THREADS": "1"})
        files = list((reviews / "runs" / "sweeps").glob("*/sweep.json"))
        return done.code, done.out + done.err, read(files[0]) if files else {}

    return run


def table(out: str) -> list[tuple[int, str, float | None]]:
    """Number, overrides and value of each row."""
    rows = re.findall(r"^  (\d+)  (.*?)  +(?:\w+=(-?[\d.]+))?  +(?:ok|exit code \d+|not started)", out, flags=re.MULTILINE)
    return [(int(number), overrides.strip(), float(value) if value else None) for number, overrides, value in rows]


def test_values_best_first(swept, reviews: Folder):
    args = [*SMALL["lstm"], *COMMON, "training.best_metric=loss"]
    code, out, told = swept("train", "-m", *args, "optimizer.lr=1e-6,2e-2")
    assert code == 0
    rows = table(out)
    assert [overrides for _, overrides, _ in rows] == ["optimizer.lr=0.02", "optimizer.lr=1e-06"]
    assert rows[0][2] < rows[1][2]
    for job, lr in zip(told["jobs"], ("1e-6", "2e-2"), strict=True):
        run = reviews / job["result"]["run_dir"]
        result = read(run / "result.json")
        assert job["exit_code"] == 0 and job["result"]["value"] == result["value"]
        reviews.ok("train", *args, *ON_CPU, f"optimizer.lr={lr}", "run_name=alone")
        alone, of_sweep = (r / "checkpoints" / "best" / "model.safetensors" for r in (reviews.latest("alone"), run))
        assert sha256(alone) == sha256(of_sweep)


@pytest.mark.slow
def test_groups_and_values_make_a_grid(swept):
    code, out, told = swept("train", "-m", *SMALL["lstm"], *COMMON, "optimizer=adamw,sgd", "training.batch_size=16,32")
    assert code == 0 and len(table(out)) == 4
    values = [value for _, _, value in table(out)]
    assert values == sorted(values, reverse=True)
    points = [{o for o in job["overrides"] if o.startswith(("optimizer", "training.batch"))} for job in told["jobs"]]
    assert {frozenset(p) for p in points} == {
        frozenset({f"optimizer={o}", f"training.batch_size={b}"}) for o in ("adamw", "sgd") for b in (16, 32)
    }


def test_recipes_of_which_one_fails(swept, reviews: Folder):
    """It leaves the other alone."""
    (reviews / "recipes").mkdir()
    for name, column in (("wrong", "nothing"), ("right", "label")):
        (reviews / "recipes" / f"{name}.yaml").write_text(RECIPE.format(name=name, column=column))
    code, out, told = swept("train", "-m", "+recipe=wrong,right")
    assert code == 3 and [job["exit_code"] for job in told["jobs"]] == [3, 0]
    assert [overrides for _, overrides, _ in table(out)] == ["+recipe=right", "+recipe=wrong"]
    assert {p.name for p in (reviews / "runs").iterdir()} == {"right", "sweeps"}


def test_a_bad_point_stops_the_sweep_before_the_first(swept, reviews: Folder):
    code, out, _ = swept("train", "-m", *SMALL["lstm"], *COMMON, "training.batch_size=16,-1")
    assert code == 2 and "training.batch_size" in out and not (reviews / "runs").exists()


@pytest.mark.slow
def test_a_sweep_of_run_exports_every_job(swept, reviews: Folder):
    code, _, told = swept("run", "-m", *SMALL["lstm"], *COMMON, "seed=0,1", "export=huggingface")
    assert code == 0
    for job in told["jobs"]:
        assert (reviews / job["result"]["run_dir"] / "export" / "huggingface" / "model.safetensors").is_file()


@pytest.mark.slow
def test_eight_jobs_at_once_share_one_cache(reviews: Folder, command):
    """As a launcher starts them that runs several jobs at a time."""
    env = {"LLMTUNE_CACHE": str(reviews / "cache"), "OMP_NUM_THREADS": "1"}
    args = ["train", *SMALL["lstm"], *COMMON[:3], *ON_CPU]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda i: command(*args, f"run_name=job-{i}", env=env), range(8)))
    assert [job.code for job in done] == [0] * 8, [job.err for job in done if job.code]
    assert len({sha256(reviews.latest(f"job-{i}") / "checkpoints" / "best" / "model.safetensors") for i in range(8)}) == 1
    assert len([path for path in (reviews / "cache").rglob("train.arrow")]) == 1
    assert not [path for path in (reviews / "cache").rglob("*") if path.name.startswith((".tmp", ".trash"))]
