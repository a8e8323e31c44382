"""Signals at any moment of any verb: an exit code that tells, nothing half-written, and the same command goes on."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from llmtune.training import checkpoint
from tests.faults.processes import ON_CPU, TRAIN, ended, num_steps, start, strike, wait_until
from tests.pipeline.conftest import Folder, sentences, write_rows
from tests.pipeline.test_resume import assert_equal_ends

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 75}
NUM_ROWS = 200
A_SAVE = "llmtune.training.manifest:write"  # beside training
A_WRITE = "llmtune.training.checkpoint:write"
A_MICRO_BATCH = "llmtune.training.loop:draw_key"
SCORING = "llmtune.tasks.classification:ClassificationTask.score"
WITHIN = 10  # seconds from a signal to the end


@pytest.fixture
def trained(whole: Folder, tmp_path: Path) -> Folder:
    """A folder with the same run, to be worked on."""
    return Folder(shutil.copytree(whole.path, tmp_path / "trained", symlinks=True))


def files(folder: Folder) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {str(p.relative_to(folder.path)) for p in folder.path.rglob("*")} - {"struck-at"}


def assert_plain(said: str) -> None:
    assert "Traceback" not in said and "Exception" not in said and "bug of llmtune" not in said, said


@pytest.mark.parametrize(
    ("moment", "number", "signals", "code"),
    [
        (A_SAVE, 3, "SIGTERM", 143),
        pytest.param(A_MICRO_BATCH, 40, "SIGHUP", 129, marks=pytest.mark.slow),
        pytest.param(A_SAVE, 4, "SIGINT", 130, marks=pytest.mark.slow),
        pytest.param(A_SAVE, 2, "SIGUSR1", 75, marks=pytest.mark.slow),
        pytest.param(SCORING, 3, "SIGTERM", 143, marks=pytest.mark.slow),
        pytest.param("llmtune.training.checkpoint:rotate", 3, "SIGTERM", 143, marks=pytest.mark.slow),
    ],
)
def test_train_saves_and_goes_on(whole: Folder, mine: Folder, moment: str, number: int, signals: str, code: int):
    done = strike(mine, [(moment, number, signals)], *TRAIN)
    assert done.code == code and done.seconds < WITHIN and "everything is saved" in done.said, done.said
    assert_plain(done.said)
    run = mine.latest("a")
    saved = checkpoint.steps(run / "checkpoints")
    assert not (run / "result.json").exists() and not list((run / "checkpoints").glob(".*"))
    assert saved[-1][1].name == (run / "checkpoints" / "latest").readlink().name and checkpoint.verify(saved[-1][1])
    assert f"after step {saved[-1][0]} of" in done.said and "resuming" in mine.ok(*TRAIN).err
    assert_equal_ends(run, whole.latest("a"))


@pytest.mark.parametrize("moment", [A_MICRO_BATCH, pytest.param(A_WRITE, marks=pytest.mark.slow)])
def test_a_second_interrupt_quits_at_once(whole: Folder, mine: Folder, moment: str):
    done = strike(mine, [(moment, 3, "SIGINT,SIGINT")], *TRAIN)
    assert done.code == 130 and done.seconds < WITHIN and "Interrupted" not in done.said, done.said
    assert_plain(done.said)
    mine.ok(*TRAIN)
    assert_equal_ends(mine.latest("a"), whole.latest("a"))


@pytest.mark.slow
def test_a_second_interrupt_after_the_save(whole: Folder, mine: Folder):
    """While Python shuts down, which takes it a second, and prints what destructors raise."""
    done = strike(mine, [(A_MICRO_BATCH, 12, "SIGINT"), ("end", 0, "SIGINT")], *TRAIN)
    assert done.code == 130 and "everything is saved" in done.said, done.said
    assert_plain(done.said)
    mine.ok(*TRAIN)
    assert_equal_ends(mine.latest("a"), whole.latest("a"))


@pytest.mark.slow
def test_a_pause_changes_nothing(whole: Folder, mine: Folder):
    process = start(mine, "-m", "llmtune", *TRAIN)
    wait_until(lambda: num_steps(mine, "a") >= 10, process)
    process.send_signal(signal.SIGSTOP)
    paused_at = num_steps(mine, "a")
    time.sleep(1)
    assert num_steps(mine, "a") <= paused_at + 1 and process.poll() is None
    process.send_signal(signal.SIGCONT)
    assert ended(process, within=60).code == 0
    assert_equal_ends(mine.latest("a"), whole.latest("a"))


@pytest.mark.parametrize(
    ("moment", "number", "args"),
    [
        (SCORING, 2, ["evaluate", "runs/a/latest", "evaluation.batch_size=4"]),
        pytest.param(
            "llmtune.export.parity:check", 1, ["export", "runs/a/latest", "export=huggingface"], marks=pytest.mark.slow
        ),
        pytest.param(
            "llmtune.evaluation.report:write", 1, ["evaluate", "runs/a/latest", "split=train"], marks=pytest.mark.slow
        ),
        pytest.param(
            "llmtune.training.manifest:write", 1, ["export", "runs/a/latest", "export=huggingface"], marks=pytest.mark.slow
        ),
        pytest.param(SCORING, 2, ["predict", "runs/a/latest", "reviews.csv", "output=out.jsonl"], marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("sent", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_other_verbs_end_plainly(trained: Folder, moment: str, number: int, args: list[str], sent: str):
    before = files(trained)
    done = strike(trained, [(moment, number, sent)], *args, "hardware=cpu")
    assert done.code == CODES[sent] and done.seconds < WITHIN, done.said
    assert done.said.splitlines()[-1] == {"SIGTERM": "stopped by SIGTERM", "SIGINT": "interrupted"}[sent]
    assert_plain(done.said)
    new = {name for name in files(trained) - before if (trained / name).is_file()}
    # An evaluation is there once its metrics.json is; each of its files is whole.
    assert not {name for name in new if not name.endswith("/evaluation/train/predictions.jsonl")}
    trained.ok(*args)


@pytest.mark.parametrize("number", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_preprocess_leaves_nothing(mine: Folder, number: int):
    """The first call of encode is on 10,000 rows of train; the third is on those of test."""
    write_rows(mine / "reviews.csv", sentences(15_000))
    args = ["preprocess", "data.train_file=reviews.csv", "tokenizer=word"]
    before = files(mine)
    done = strike(mine, [("llmtune.tasks.classification:ClassificationTask.encode", number, "SIGTERM")], *args)
    assert done.code == 143 and done.seconds < WITHIN and done.said.endswith("stopped by SIGTERM\n"), done.said
    assert_plain(done.said)
    assert not [name for name in files(mine) - before if (mine / name).is_file()]
    mine.ok(*args)


def is_ours(process: subprocess.Popen) -> bool:
    """Whether our first line has run: until then a ctrl-C is Python's own affair, and is no longer caught afterwards."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_moments(folder: Folder, sent: signal.Signals):
    process = start(folder, "-m", "llmtune", "list")
    wait_until(lambda: is_ours(process), process)
    process.send_signal(sent)
    done = ended(process, within=WITHIN)
    assert done.code in (128 + sent, -sent, 0)
    assert_plain(done.said)


VERBS = {
    "train": TRAIN,
    "evaluate": ["evaluate", "runs/a/latest", *ON_CPU],
    "preprocess": ["preprocess", "data.train_file=reviews.csv", "tokenizer=word"],
    "predict": ["predict", "runs/a/latest", "reviews.csv", *ON_CPU],
    "export": ["export", "runs/a/latest", "export=huggingface", *ON_CPU],
    "show": ["show", "train", "data.train_file=reviews.csv"],
}


def hit_after(folder: Folder, verb: str, delay: float, sent: str) -> None:
    process = start(folder, "-m", "llmtune", *VERBS[verb])
    wait_until(lambda: is_ours(process), process)
    time.sleep(delay)
    process.send_signal(signal.Signals[sent])
    done = ended(process, within=WITHIN)
    number = signal.Signals[sent]
    assert done.code in (0, CODES[sent], -number), f"{verb} after {delay:.2f} s: {done}"
    assert_plain(done.said)


@pytest.mark.parametrize(("verb", "delay", "sent"), [("train", 0.5, "SIGINT"), ("predict", 1.0, "SIGTERM")])
def test_in_the_imports(trained: Folder, verb: str, delay: float, sent: str):
    hit_after(trained, verb, delay, sent)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("verb", VERBS)
def test_at_random_moments(trained: Folder, verb: str, sent: str):
    rng = random.Random(f"{verb} {sent}")
    for _ in range(20):
        hit_after(trained, verb, rng.uniform(0, 4), sent)
