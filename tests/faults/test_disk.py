"""A disk that is full, before the start and in a save; file-size limits; a file system that nobody may write to."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.nursery import Done, Nursery
from tests.faults.processes import ON_CPU
from tests.pipeline.conftest import SMALL, Folder, sentences, sha256, write_rows

ARGS = ["data.train_file=rows.csv", "run_name=a", "training.epochs=3", "training.save_every=4", "tokenizer.min_frequency=1"]


@pytest.fixture
def train(nursery: Nursery, tmp_path: Path) -> Callable[..., Done]:
    """`llmtune train` on 80 rows, in a process of its own, whose files may not grow beyond `largest_file` bytes."""
    write_rows(tmp_path / "rows.csv", sentences(80))
    command = ["llmtune", "train", *ARGS, *ON_CPU, *SMALL["lstm"]]
    return lambda *args, **limit: nursery.run(*command, *args, folder=tmp_path, **limit)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("tmpfs cannot be mounted here (needs root): a full disk is not tested")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_limit_is_found_out_before_the_first_step(train: Callable[..., Done]):
    assert train("training.max_steps=1").code == 0  # fills the cache
    done = train("seed=0", "run_name=b", largest_file=20_000)
    assert done.code == 5 and "could not be written" in done.told, done.told
    assert "Traceback" not in done.told and "step 1" not in done.told


def test_a_full_disk_is_found_out_before_the_first_step(train: Callable[..., Done], small_disk: Path):
    done = train(f"output_dir={small_disk}", "model.hidden_size=300")
    assert done.code == 5 and "No space left" in done.told and "output_dir" in done.told, done.told
    assert not list(small_disk.rglob("step-*")) and not list(small_disk.rglob("*rehearsal*"))


def test_a_disk_that_fills_up_in_a_save_costs_nothing(train: Callable[..., Done], tmp_path: Path, small_disk: Path):
    """The last checkpoint is intact, and with room again the run ends as the one that never failed."""
    assert train().code == 0
    whole = next(tmp_path.glob("runs/a/2*"))
    ballast = small_disk / "ballast"
    size = sum(file.stat().st_size for file in (whole / "checkpoints" / "latest").iterdir())
    ballast.write_bytes(bytes(1024 * 1024 - int(2.5 * size)))  # room for two checkpoints, and not for a third
    failed = train(f"output_dir={small_disk}", "training.keep_checkpoints=3")
    assert failed.code == 5 and "No space left" in failed.told, failed.told
    run = next(small_disk.glob("a/2*"))
    assert not list((run / "checkpoints").glob(".tmp*"))
    ballast.unlink()
    resumed = train(f"output_dir={small_disk}", "training.keep_checkpoints=3")
    assert resumed.code == 0 and "resuming" in resumed.told, resumed.told
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert sha256(run / "checkpoints" / "latest" / name) == sha256(whole / "checkpoints" / "latest" / name)


def test_a_file_where_the_runs_should_be(folder: Folder):
    write_rows(folder / "rows.csv", sentences(40))
    (folder / "runs").write_text("")
    done = folder("train", "data.train_file=rows.csv", *SMALL["lstm"])
    assert done.code == 5 and "runs" in done.err and "Traceback" not in done.err
