"""A disk that is full, before the start and in a save; file-size limits; a file system that nobody may write to."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import SMALL, Folder, sentences, sha256, write_rows

ROOT = Path(__file__).resolve().parents[2]
ARGS = [
    "data.train_file=rows.csv",
    "run_name=a",
    "training.epochs=3",
    "training.save_every=4",
    "tokenizer.min_frequency=1",
    "hardware=cpu",
    "hardware.precision=fp32",
    "hardware.num_threads=1",
    *SMALL["lstm"],
]


def train(folder: Path, *args: str, limit: int | None = None) -> subprocess.CompletedProcess:
    """`llmtune train` in a process of its own, whose files may not grow beyond `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "llmtune", "train", *ARGS, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LLMTUNE_CACHE": str(folder / "cache")},
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
        capture_output=True,
        text=True,
        timeout=120,
    )


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


def test_a_limit_is_found_out_before_the_first_step(tmp_path: Path):
    write_rows(tmp_path / "rows.csv", sentences(80))
    assert train(tmp_path, "training.max_steps=1").returncode == 0  # fills the cache
    done = train(tmp_path, "seed=0", "run_name=b", limit=20_000)
    assert done.returncode == 5 and "could not be written" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "step 1" not in done.stderr


def test_a_full_disk_is_found_out_before_the_first_step(tmp_path: Path, small_disk: Path):
    write_rows(tmp_path / "rows.csv", sentences(80))
    done = train(tmp_path, f"output_dir={small_disk}", "model.hidden_size=300")
    assert done.returncode == 5 and "No space left" in done.stderr and "output_dir" in done.stderr, done.stderr
    assert not list(small_disk.rglob("step-*")) and not list(small_disk.rglob("*rehearsal*"))


def test_a_disk_that_fills_up_in_a_save_costs_nothing(tmp_path: Path, small_disk: Path):
    """The last checkpoint is intact, and with room again the run ends as the one that never failed."""
    write_rows(tmp_path / "rows.csv", sentences(80))
    assert train(tmp_path).returncode == 0
    whole = next(tmp_path.glob("runs/a/2*"))
    ballast = small_disk / "ballast"
    size = sum(file.stat().st_size for file in (whole / "checkpoints" / "latest").iterdir())
    ballast.write_bytes(bytes(1024 * 1024 - int(2.5 * size)))  # room for two checkpoints, and not for a third
    failed = train(tmp_path, f"output_dir={small_disk}", "training.keep_checkpoints=3")
    assert failed.returncode == 5 and "No space left" in failed.stderr, failed.stderr
    run = next(small_disk.glob("a/2*"))
    assert not list((run / "checkpoints").glob(".tmp*"))
    ballast.unlink()
    resumed = train(tmp_path, f"output_dir={small_disk}", "training.keep_checkpoints=3")
    assert resumed.returncode == 0 and "resuming" in resumed.stderr, resumed.stderr
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert sha256(run / "checkpoints" / "latest" / name) == sha256(whole / "checkpoints" / "latest" / name)


def test_a_file_where_the_runs_should_be(folder: Folder):
    write_rows(folder / "rows.csv", sentences(40))
    (folder / "runs").write_text("")
    done = folder("train", "data.train_file=rows.csv", *SMALL["lstm"])
    assert done.code == 5 and "runs" in done.err and "Traceback" not in done.err
