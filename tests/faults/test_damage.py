"""Every flipped bit, every cut and every missing file of a checkpoint is noticed; a resume passes it over and says so."""

import json
import random
import shutil
from pathlib import Path

import pytest

from llmtune.errors import CheckpointError
from llmtune.training import checkpoint, manifest
from tests.pipeline.conftest import SMALL, Folder, sentences, sha256, write_rows

FLIPS, CUTS = 200, 20  # of each file
ARGS = [
    "data.train_file=rows.csv",
    "run_name=a",
    "training.epochs=2",
    "training.keep_checkpoints=5",
    "tokenizer.min_frequency=1",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    folder = Folder(tmp_path_factory.mktemp("trained"))
    write_rows(folder / "rows.csv", sentences(60))
    folder.ok("train", *ARGS, *SMALL["lstm"])
    return folder


@pytest.fixture
def step(trained: Folder, tmp_path: Path) -> Path:
    """A copy of a checkpoint that may be damaged."""
    original = (trained.latest("a") / "checkpoints" / "latest").resolve()
    return shutil.copytree(original, tmp_path / original.name)


def is_noticed(step: Path) -> bool:
    try:
        checkpoint.verify(step)
    except CheckpointError:
        return True
    return False


def test_every_file_is_in_the_manifest(step: Path):
    named = set(manifest.read(step)["files"])
    assert named | {manifest.NAME} == {file.name for file in step.iterdir()} and len(named) >= 6


def test_flipped_bits(step: Path):
    rng = random.Random(0)
    for file in sorted(step.iterdir()):
        content = file.read_bytes()
        for _ in range(FLIPS):
            at, bit = rng.randrange(len(content)), rng.randrange(8)
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            file.write_bytes(changed)
            # A blank between two tokens of the manifest may become another one: nothing is said otherwise by it.
            means_the_same = file.name == manifest.NAME and _parsed(changed) == json.loads(content)
            assert is_noticed(step) or means_the_same, f"{file.name}: bit {bit} of byte {at}"
        file.write_bytes(content)
    assert not is_noticed(step)


def test_cuts(step: Path):
    rng = random.Random(1)
    for file in sorted(step.iterdir()):
        content = file.read_bytes()
        for length in [0, len(content) - 2, *(rng.randrange(len(content) - 1) for _ in range(CUTS))]:
            file.write_bytes(content[:length])
            assert is_noticed(step), f"{file.name} cut to {length} bytes"
        file.write_bytes(content)


def test_swapped_files(trained: Folder, tmp_path: Path):
    folder = shutil.copytree(trained.latest("a") / "checkpoints", tmp_path / "checkpoints", symlinks=True)
    (_, first), (_, second) = checkpoint.steps(folder)[-2:]
    for name in ("model.safetensors", "optimizer.safetensors", "trainer.json", manifest.NAME):
        for a, b in ((first, second), (second, first)):
            damaged = shutil.copytree(a, tmp_path / "damaged" / a.name)
            shutil.copyfile(b / name, damaged / name)
            assert is_noticed(damaged), name
            shutil.rmtree(tmp_path / "damaged")


def test_each_missing_file_is_told_and_the_run_goes_on_from_the_step_before(trained: Folder, tmp_path: Path):
    run = trained.latest("a")
    whole = (run / "checkpoints" / "latest").resolve()
    expected = sha256(whole / "model.safetensors")
    (run / "result.json").unlink()
    for name in [manifest.NAME, *manifest.read(whole)["files"]]:
        (whole / name).unlink()
        done = trained.ok("train", *ARGS, *SMALL["lstm"])
        assert f"passing over {whole.name}" in done.err and "resuming" in done.err, name
        assert sha256(whole / "model.safetensors") == expected
        (run / "result.json").unlink()


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError:
        return None
