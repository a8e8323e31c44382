"""`llmtune verify`: whole things pass, and every kind of damage below a run is told with its place."""

import shutil

import pytest

from tests.pipeline.conftest import SMALL, Folder, sentences, write_rows


@pytest.fixture(scope="module")
def whole(shared: Folder) -> Folder:
    write_rows(shared / "rows.csv", sentences(60))
    args = [
        "data.train_file=rows.csv",
        "run_name=a",
        "training.epochs=2",
        "training.keep_checkpoints=2",
        "tokenizer.min_frequency=1",
    ]
    shared.ok("run", *args, *SMALL["lstm"])
    return shared


@pytest.fixture
def run(whole: Folder, tmp_path):
    """A copy of the run that may be damaged."""
    return shutil.copytree(whole.latest("a"), tmp_path / "run", symlinks=True)


def flip(file) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_whole_run_passes(whole: Folder, run):
    done = whole("verify", str(run))
    assert done.code == 0, done.err
    for place in ("step-000002", "step-000004", "metrics.jsonl", "result.json", "export/huggingface", "export/onnx"):
        assert place in done.out
    assert "  damaged  " not in done.out


@pytest.mark.parametrize("place", ["checkpoints/best", "export/huggingface", "export/onnx"])
def test_a_single_directory_passes(whole: Folder, run, place):
    assert whole("verify", str(run / place)).code == 0


@pytest.mark.parametrize(
    "place",
    [
        "checkpoints/step-000002/model.safetensors",
        "checkpoints/step-000004/trainer.json",
        "export/onnx/model.onnx",
        "export/huggingface/config.json",
    ],
)
@pytest.mark.parametrize("harm", [flip, lambda file: file.unlink()], ids=["flip", "remove"])
def test_a_damaged_file_is_told(whole: Folder, run, place, harm):
    harm(run / place)
    done = whole("verify", str(run))
    assert done.code == 4 and "1 of" in done.err and "Traceback" not in done.err
    (line,) = [line for line in done.out.splitlines() if "  damaged  " in line]
    folder, _, name = place.rpartition("/")
    assert folder in line and name in line


def test_broken_logs_and_links_are_told(whole: Folder, run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    (run / "result.json").write_text("{")
    (run / "checkpoints" / "best").unlink()
    (run / "checkpoints" / "best").symlink_to("step-000099")
    done = whole("verify", str(run))
    assert done.code == 4 and "3 of" in done.err
    assert "half a line at the end" in done.out and "leads to no checkpoint" in done.out


def test_a_model_card_may_be_changed(whole: Folder, run):
    (run / "export" / "huggingface" / "README.md").write_text("# mine")
    assert whole("verify", str(run)).code == 0


@pytest.mark.parametrize(("path", "words"), [("nowhere", "there is no"), (".", "neither a run directory")])
def test_what_is_no_run_is_refused(whole: Folder, path, words):
    done = whole("verify", path)
    assert done.code == 4 and words in done.err


def test_what_a_killed_export_left_is_removed(whole: Folder, run):
    dead = run / "export" / ".tmp-onnx.4194305"  # beyond the largest process id of Linux
    dead.mkdir()
    whole.ok("export", str(run), "export=huggingface")
    assert not dead.exists() and (run / "export" / "onnx").is_dir()
