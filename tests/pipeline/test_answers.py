"""evaluate, predict, export and show on a finished run: every way to ask, and what comes back."""

import gzip
import json
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import SMALL, Folder, points, read, read_lines, sentences, write_rows

RUN = "runs/mine/latest"
TEXTS = ["a good film", "a dull story about rain", "superb", 'käse & <b>bread</b> "quoted", 字']


@pytest.fixture(scope="module")
def finished(shared: Folder) -> Folder:
    """A folder with a finished run."""
    write_rows(shared / "reviews.csv", sentences(400))
    args = [*SMALL["lstm"], "data.train_file=reviews.csv", "tokenizer.min_frequency=1", "optimizer.lr=.01", "training.epochs=8"]
    shared.ok("train", *args, "training.batch_size=16", "run_name=mine")
    return shared


def answers(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_predict_standard_input(finished: Folder):
    rows = answers(finished.ok("predict", RUN, stdin="\n".join(TEXTS)).out)
    assert [row["text"] for row in rows] == TEXTS
    assert [row["label"] for row in rows[:3]] == ["positive", "negative", "positive"]
    for row in rows:
        assert row["probability"] == max(row["probabilities"].values()) and sum(row["probabilities"].values()) == pytest.approx(
            1, abs=1e-5
        )
    assert (
        finished.ok("predict", RUN, "-", stdin="\n".join(TEXTS)).out == finished.ok("predict", RUN, stdin="\n".join(TEXTS)).out
    )


@pytest.mark.parametrize(
    "name", ["in.txt", "in.txt.gz", "in.csv", "in.csv.gz", "in.jsonl", "in.json", "in.parquet", "no_ending"]
)
def test_predict_a_file(finished: Folder, name: str):
    texts = TEXTS[:3]
    if name == "no_ending":
        (finished / name).write_text("\n".join(texts))
    else:
        write_rows(finished / name, [{"text": text} for text in texts])
    expected = finished.ok("predict", RUN, stdin="\n".join(texts)).out
    assert finished.ok("predict", RUN, name).out == expected
    told = finished.ok("predict", RUN, name, "output=out.jsonl")
    assert told.out == "" and (finished / "out.jsonl").read_text() == expected


def test_predict_does_not_depend_on_the_batch_size(finished: Folder):
    lines = "".join(row["text"] + "\n" for row in sentences(50, seed=8))
    one, many = (answers(finished.ok("predict", RUN, f"batch_size={n}", stdin=lines).out) for n in (1, 50))
    assert [row["label"] for row in one] == [row["label"] for row in many]
    assert [row["probability"] for row in one] == pytest.approx([row["probability"] for row in many], abs=2e-6)


def test_predict_leaves_out_blank_lines_and_nothing_gives_nothing(finished: Folder):
    assert [row["text"] for row in answers(finished.ok("predict", RUN, stdin="good\n\n  \nbad\r\n").out)] == ["good", "bad"]
    assert finished.ok("predict", RUN, stdin="").out == ""


@pytest.mark.parametrize(
    ("args", "content", "code", "words"),
    [
        (["nowhere.txt"], None, 3, "nowhere.txt"),
        (["nowhere.csv"], None, 3, "nowhere.csv"),
        (["bad.txt"], b"good\n\xff\xfe\n", 3, "UTF-8"),
        (["bad.txt.gz"], gzip.compress(b"good film\n" * 9, mtime=0)[:-9], 3, "gzip"),
        (["bad.txt.gz"], b"good\n", 3, "gzip"),
        (["bad.csv"], b"review\ngood\n", 3, "text"),
        (["ok.txt", "output=no/such/folder/x.jsonl"], b"good\n", 3, "no/such/folder"),
        (["ok.txt", "output=runs"], b"good\n", 3, "runs"),
        (["ok.txt", "batch_size=0"], b"good\n", 2, "batch_size"),
    ],
)
def test_predict_mistakes(finished: Folder, args: list[str], content: bytes | None, code: int, words: str):
    if content is not None:
        (finished / args[0]).write_bytes(content)
    before = sorted(p for p in finished.path.rglob("*") if "cache" not in p.parts)
    refused = finished("predict", RUN, *args)
    assert refused.code == code and words in refused.err and "Traceback" not in refused.err, refused.err
    assert sorted(p for p in finished.path.rglob("*") if "cache" not in p.parts) == before


def test_a_failure_leaves_the_old_predictions(finished: Folder):
    (finished / "late.txt").write_bytes(b"good\n" * 40 + b"\xff\n")
    (finished / "kept.jsonl").write_text("old")
    assert finished("predict", RUN, "late.txt", "output=kept.jsonl").code == 3
    assert (finished / "kept.jsonl").read_text() == "old"


def test_numbers_one_a_line(folder: Folder):
    write_rows(folder / "points.csv", points(200))
    numeric = ["data.text_column=null", "data.feature_columns=[u,v]", "data.label_column=y"]
    folder.ok(
        "train",
        "task=regression",
        "model=mlp",
        "model.hidden_sizes=[]",
        "data.train_file=points.csv",
        *numeric,
        "optimizer=sgd",
        "training.epochs=10",
    )
    for line in ("1,2", "1 2", "1\t2", " 1.0, 2e0 "):
        (row,) = answers(folder.ok("predict", "runs/regression/latest", stdin=f"{line}\n").out)
        assert row["value"] == pytest.approx(3 * 1 - 2 * 2 + 5, abs=0.3)
    for line in ("1", "1,2,3", "one,two"):
        refused = folder("predict", "runs/regression/latest", stdin=f"0,0\n{line}\n")
        assert refused.code == 3 and "-:2" in refused.err and "2 numbers" in refused.err


def test_evaluate_a_file(finished: Folder):
    write_rows(finished / "unseen.csv", sentences(60, seed=7))
    told = finished.ok("evaluate", RUN, "file=unseen.csv")
    directory = finished.latest("mine") / "evaluation" / "unseen.csv"
    assert "evaluated on unseen.csv" in told.out and "report.html" in told.out
    rows = read_lines(directory / "predictions.jsonl")
    assert [row["text"] for row in rows] == [row["text"] for row in sentences(60, seed=7)]
    accuracy = sum(row["prediction"] == row["reference"] for row in rows) / 60
    assert read(directory / "metrics.json")["accuracy"] == pytest.approx(accuracy)


def test_evaluate_does_not_depend_on_the_batch_size(finished: Folder):
    found = []
    for size in (1, 7, 64):
        finished.ok("evaluate", RUN, f"evaluation.batch_size={size}")
        found.append(read(finished.latest("mine") / "evaluation" / "test" / "metrics.json"))
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6) == pytest.approx(found[2]["loss"], rel=1e-6)
    assert found[0]["confusion_matrix"] == found[1]["confusion_matrix"] == found[2]["confusion_matrix"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluate_a_split(finished: Folder, split: str):
    finished.ok("evaluate", RUN, f"split={split}")
    rows = read_lines(finished.latest("mine") / "evaluation" / split / "predictions.jsonl")
    assert len(rows) == {"train": 320, "validation": 40, "test": 40}[split]


def test_evaluate_a_file_with_an_unknown_label(finished: Folder):
    write_rows(finished / "odd.csv", [*sentences(4), {"text": "so so", "label": "mixed", "length": "2"}])
    refused = finished("evaluate", RUN, "file=odd.csv")
    assert refused.code == 3 and "mixed" in refused.err and "odd.csv:6" in refused.err and "negative, positive" in refused.err


@pytest.mark.parametrize("path", ["runs/mine/latest", "runs/mine/latest/checkpoints/best"])
def test_a_run_is_found_by_any_of_its_paths(finished: Folder, path: str):
    finished.ok("evaluate", path)
    finished.ok("export", path, "export=huggingface")
    assert (
        finished.ok("predict", path, stdin="good\n").out
        == finished.ok("predict", str(finished.latest("mine")), stdin="good\n").out
    )


def test_export_elsewhere(finished: Folder):
    finished.ok("export", RUN, "output=given/away", "parity_rows=5")
    assert {p.name for p in (finished / "given" / "away").iterdir()} == {"huggingface", "onnx", "parity.json"}
    assert read(finished / "given" / "away" / "parity.json")["exports"]["onnx"]["rows"] == 5
    lines = "\n".join(TEXTS)
    assert finished.ok("predict", "given/away/huggingface", stdin=lines).out == finished.ok("predict", RUN, stdin=lines).out


def test_export_leaves_a_folder_of_others_alone(finished: Folder):
    (finished / "mine" / "onnx").mkdir(parents=True)
    (finished / "mine" / "onnx" / "thesis.txt").write_text("years of work")
    refused = finished("export", RUN, "output=mine")
    assert refused.code == 5 and "in the way" in refused.err
    assert (finished / "mine" / "onnx" / "thesis.txt").read_text() == "years of work"
    assert not (finished / "mine" / "huggingface").exists()


def test_one_export_after_another_are_told_together(finished: Folder):
    finished.ok("export", RUN, "export=huggingface", "output=both")
    finished.ok("export", RUN, "export=onnx", "output=both")
    assert set(read(finished / "both" / "parity.json")["exports"]) == {"huggingface", "onnx"}


def test_from_another_folder(finished: Folder, tmp_path: Path):
    """The run's rows are in the cache: the relative path of its data file does not matter."""
    elsewhere = Folder(tmp_path)
    run = str(finished.latest("mine"))
    (tmp_path / "cache").symlink_to(finished / "cache")
    elsewhere.ok("evaluate", run)
    elsewhere.ok("export", run, "output=here")
    assert (tmp_path / "here" / "onnx" / "model.onnx").is_file()


def test_the_saved_config_reads_back(finished: Folder):
    """As the recipe of another run, what a run saved gives the same config."""
    saved = yaml.safe_load((finished.latest("mine") / "config.yaml").read_text())
    args = [*SMALL["lstm"], "data.train_file=reviews.csv", "tokenizer.min_frequency=1", "optimizer.lr=.01", "training.epochs=8"]
    hardware = ["hardware=cpu", "hardware.precision=fp32"]
    shown = finished.ok("show", "train", *args, "training.batch_size=16", "run_name=mine", *hardware)
    assert yaml.safe_load(shown.out) == saved
    (finished / "recipes").mkdir()
    (finished / "recipes" / "back.yaml").write_text(yaml.safe_dump(saved))
    again = finished.ok("show", "train", "+recipe=back")
    assert yaml.safe_load(again.out) == saved


def test_predict_never_overwrites_what_it_reads(finished: Folder):
    before = (finished / "reviews.csv").read_bytes()
    refused = finished("predict", RUN, "reviews.csv", "output=reviews.csv")
    assert refused.code == 3 and "take the place" in refused.err
    assert (finished / "reviews.csv").read_bytes() == before
    finished.ok("predict", RUN, "reviews.csv", "output=/dev/null")
    assert Path("/dev/null").is_char_device()
