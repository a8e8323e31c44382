"""Two ranks on the CPU: the metrics of one, no hang with uneven data, and one end for both whatever befalls one of them."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from llmtune.training import checkpoint
from tests.faults.nursery import Nursery
from tests.faults.processes import ON_CPU, TWO_RANKS, Ended, children, ended, is_alive, num_steps, start, wait_until
from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, write_rows
from tests.pipeline.test_resume import assert_equal_ends

HERE = Path(__file__).parent
COMMON = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", *ON_CPU]
TRAIN = ["train", *SMALL["lstm"], *COMMON, "training.batch_size=8", "training.epochs=2", "training.save_every=7", "run_name=a"]
WITHIN = 30  # seconds in which all ranks are gone once one of them is


@pytest.fixture
def uneven(folder: Folder) -> Folder:
    """A folder with rows of which 33 are for training: four steps of 8, and one of a single row."""
    write_rows(folder / "reviews.csv", sentences(41))
    return folder


@pytest.fixture
def reviews(folder: Folder) -> Folder:
    write_rows(folder / "reviews.csv", sentences(400))
    return folder


def on_two_ranks(folder: Folder, *args: str, script: str | None = None, within: float = 120) -> Ended:
    command = [str(HERE / script)] if script else ["-m", "llmtune"]
    return ended(start(folder, *TWO_RANKS, *command, *args), within=within)


def ranks_of(process, folder: Folder) -> list[int]:
    """The two processes, once they train."""
    wait_until(lambda: num_steps(folder, "a") >= 10, process)
    ranks = children(process.pid)
    assert len(ranks) == 2
    return ranks


def close(metrics: dict) -> dict:
    return {name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value for name, value in metrics.items()}


def test_metrics_for_any_batch_size_and_number_of_ranks(uneven: Folder, nursery: Nursery):
    """33 and 4 rows: with 16 at once the second rank has nothing to score on the latter."""
    kinds = {
        "lstm": SMALL["lstm"],
        "gpt": [*SMALL["gpt"], "task=causal_lm", "data.label_column=null", "tokenizer.max_length=8"],
    }
    for name, args in kinds.items():
        uneven.ok("train", *args, *COMMON, f"run_name={name}", "training.epochs=1", "training.batch_size=8")
    paths = [str(uneven.latest(name)) for name in kinds]
    for num_ranks, file in ((1, "one.json"), (2, "two.json")):
        done = nursery.run("score", *paths, file, folder=uneven.path, num_ranks=num_ranks)
        assert done.code == 0, done.told
    one, two = read(uneven / "one.json"), read(uneven / "two.json")
    assert (one.pop("ranks"), two.pop("ranks")) == (1, 2)
    for path in paths:
        for split in ("train", "validation"):
            expected = close(one[path][f"{split} 1"])
            assert len(expected) >= 2 and "loss" in expected
            for size in (1, 4, 7, 16):
                assert one[path][f"{split} {size}"] == expected and two[path][f"{split} {size}"] == expected, (
                    path,
                    split,
                    size,
                )


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 8])
def test_uneven_rows_hang_nobody(uneven: Folder, batch_size: int):
    """33 train rows in steps of 8 leave a rank with one row too few; in steps of one row the second rank has none at all."""
    args = [*SMALL["lstm"], *COMMON, f"training.batch_size={batch_size}", "training.epochs=1", "model.dropout=0"]
    uneven.ok("train", *args, "run_name=one")
    done = on_two_ranks(uneven, "train", *args, "run_name=two")
    assert done.code == 0, done.said
    one, two = (read_lines(uneven.latest(name) / "metrics.jsonl") for name in ("one", "two"))
    assert len(one) == len(two) >= 6
    for ours, theirs in zip(one, two, strict=True):
        if ours["event"] == "step":
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        else:
            assert theirs["metrics"] == pytest.approx(ours["metrics"], rel=1e-5)


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_rank_ends_all(reviews: Folder, killed: int):
    process = start(reviews, *TWO_RANKS, "-m", "llmtune", *TRAIN)
    ranks = ranks_of(process, reviews)
    os.kill(ranks[killed], signal.SIGKILL)
    done = ended(process, within=WITHIN)
    assert done.code != 0 and "bug of llmtune" not in done.said and not any(map(is_alive, ranks)), done.said
    run = reviews.latest("a")
    assert not (run / "result.json").exists() and checkpoint.newest_good(run / "checkpoints", tell=pytest.fail)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_costs_nothing(reviews: Folder, tmp_path: Path, killed: int):
    whole = Folder(shutil.copytree(reviews.path, tmp_path / "whole"))
    assert on_two_ranks(whole, *TRAIN).code == 0
    process = start(reviews, *TWO_RANKS, "-m", "llmtune", *TRAIN)
    os.kill(ranks_of(process, reviews)[killed], signal.SIGKILL)
    ended(process, within=WITHIN)
    resumed = on_two_ranks(reviews, *TRAIN)
    assert resumed.code == 0 and "resuming" in resumed.said
    assert_equal_ends(reviews.latest("a"), whole.latest("a"))


def test_a_signal_to_the_launcher_saves(reviews: Folder):
    process = start(reviews, *TWO_RANKS, "-m", "llmtune", *TRAIN)
    ranks = ranks_of(process, reviews)
    process.terminate()
    done = ended(process, within=WITHIN)
    assert done.said.count("everything is saved") == 1 and not any(map(is_alive, ranks)), done.said
    assert "bug of llmtune" not in done.said
    run = reviews.latest("a")
    step, path = checkpoint.newest_good(run / "checkpoints", tell=pytest.fail)
    assert f"after step {step} of" in done.said and (run / "checkpoints" / "latest").resolve() == path
    assert read_lines(run / "metrics.jsonl")[-1]["step"] == step and len(list((reviews / "runs" / "a").glob("20*"))) == 1


@pytest.mark.slow
def test_a_run_that_was_saved_goes_on(reviews: Folder, tmp_path: Path):
    whole = Folder(shutil.copytree(reviews.path, tmp_path / "whole"))
    assert on_two_ranks(whole, *TRAIN).code == 0
    process = start(reviews, *TWO_RANKS, "-m", "llmtune", *TRAIN)
    ranks_of(process, reviews)
    process.terminate()
    ended(process, within=WITHIN)
    resumed = on_two_ranks(reviews, *TRAIN)
    assert resumed.code == 0 and "resuming" in resumed.said
    assert_equal_ends(reviews.latest("a"), whole.latest("a"))


def have_diverged(said: str) -> bool:
    """Whether a rank ended with 6, and the other with that or by the launcher, which waits for nobody."""
    codes = {int(code) for code in re.findall(r"exitcode  : (-?\d+)", said)}
    return 6 in codes and codes <= {6, 143, -signal.SIGTERM}


def test_a_loss_that_is_no_number_on_one_rank(reviews: Folder):
    """Row 7 is met by one rank alone; both stop before the update, and the rows of its micro-batch are told."""
    done = on_two_ranks(reviews, "nan", "7", "--", *TRAIN, "model.dropout=0", script="odd_rank.py")
    assert done.code != 0 and have_diverged(done.said), done.said
    assert done.said.count("Diverged:") == 1 and "the loss is no finite number" in done.said
    saw = re.findall(r"rank (\d) saw (\[.*?\])", done.said)
    assert len(saw) == 1 and saw[0][0] == "1", "or the test cannot tell whose rows are written"
    run = reviews.latest("a")
    assert sorted(read(run / "diverged.json")["rows"]) == json.loads(saw[0][1]) and 7 in json.loads(saw[0][1])
    assert len(list((reviews / "runs" / "a").glob("20*"))) == 1 and not (run / "result.json").exists()
    step = int(re.search(r"step (\d+): the loss", done.said)[1])
    assert all(saved < step for saved, _ in checkpoint.steps(run / "checkpoints")) and num_steps(reviews, "a") == step - 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_infinite_gradient_on_one_rank(reviews: Folder, rank: str):
    done = on_two_ranks(reviews, "gradient", rank, "12", "--", *TRAIN, script="odd_rank.py")
    assert have_diverged(done.said) and "step 12: the gradient is no finite number" in done.said, done.said
    rows = read(reviews.latest("a") / "diverged.json")["rows"]
    assert len(rows) == len(set(rows)) == 8, "all rows of the step, for the gradients were summed before anyone saw them"


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", [("error", "1", "12"), ("model", "1"), ("error", "0", "12")], ids=["in-a-step", "before-it", "on-the-main-rank"]
)
def test_a_bug_on_one_rank_ends_all(reviews: Folder, what: tuple[str, ...]):
    done = on_two_ranks(reviews, *what, "--", *TRAIN, script="odd_rank.py", within=60)
    assert done.code != 0 and done.said.count("This is a bug of llmtune") == 1 and "a bug on one rank" in done.said, done.said
    assert len(list((reviews / "runs").glob("a/20*"))) <= 1


@pytest.mark.slow
def test_accelerate_launch(reviews: Folder):
    """`--multi_gpu` is its word for several processes, on the CPU, too; `--cpu` starts a single one."""
    command = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1", "-m", "llmtune"]
    done = ended(start(reviews, *command, *TRAIN), within=120)
    assert done.code == 0 and done.said.count("best checkpoint") == 1, done.said
    assert read(reviews.latest("a") / "checkpoints" / "best" / "MANIFEST.json")["fingerprint"]["ranks"] == 2
