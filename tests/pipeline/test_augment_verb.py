"""`llmtune augment`: rows as training sees them, shown or written."""

import csv
import sys
from pathlib import Path

import pytest

from llmtune import console
from llmtune.commands.preparing import prepare_stage
from llmtune.config import compose
from llmtune.data.augment import registry
from llmtune.tasks.base import Draw
from llmtune.tasks.prepare import task_of
from tests.pipeline.conftest import SMALL, Folder, pairs, read_lines, sentences, write_rows

DATA = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1"]
SOME = "augment=[synonyms,drop,swap,characters]"


def seen_in_training(folder: Folder, args: list[str], *, epoch: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The train rows' texts as they are tokenized in an epoch."""
    monkeypatch.chdir(folder.path)
    monkeypatch.setenv("LLMTUNE_CACHE", str(folder / "cache"))
    config = compose.compose("train", args).config
    ready = prepare_stage(config)
    task = task_of(ready)
    text = task.text if hasattr(task, "text") else task.inputs.text
    text.augmenter = registry.build(config.augment)
    split = ready.splits["train"]
    examples = [{**row, "id": i} for i, row in enumerate(split.rows(range(len(split))))]
    rows = text.augment(examples, Draw(config.seed, epoch))
    return [{name: row[name] for name in ("text", "text_pair") if name in row} for row in rows]


def test_what_is_written_is_what_training_sees(reviews: Folder, monkeypatch):
    done = reviews.ok("augment", *DATA, SOME, "output=more.jsonl", "copies=2", "seed=3")
    rows = read_lines(reviews / "more.jsonl")
    assert "320, " in done.out and "of them changed" in done.out
    assert [row["epoch"] for row in rows] == [0] * 160 + [1] * 160
    for epoch in (0, 1):
        expected = seen_in_training(reviews, [*DATA, SOME, "seed=3"], epoch=epoch, monkeypatch=monkeypatch)
        assert [row["text"] for row in rows if row["epoch"] == epoch] == [row["text"] for row in expected]
    source = list(csv.DictReader((reviews / "reviews.csv").open()))
    for row in rows:
        assert row["source_file"] == "reviews.csv" and row["label"] == source[row["source_row"] - 2]["label"]


def test_rows_that_a_language_model_leaves_out_are_left_out(reviews: Folder, monkeypatch):
    rows = [row | {"text": " " if i % 7 == 3 else row["text"]} for i, row in enumerate(sentences(60))]
    write_rows(reviews / "reviews.csv", rows)
    args = [*DATA, *SMALL["bert"], "task=masked_lm", "data.label_column=null", "augment=swap"]
    reviews.ok("augment", *args, "output=more.csv", "epoch=4")
    written = list(csv.DictReader((reviews / "more.csv").open()))
    expected = seen_in_training(reviews, args, epoch=4, monkeypatch=monkeypatch)
    assert [row["text"] for row in written] == [row["text"] for row in expected]
    assert all(row["text"].strip() for row in written) and len(written) < 48
    assert list(written[0]) == ["text", "source_file", "source_row", "epoch"]


def test_pairs_keep_their_columns_and_can_be_trained_on(folder: Folder):
    write_rows(folder / "pairs.jsonl", pairs(80))
    columns = ["data.text_column=premise", "data.text_pair_column=hypothesis"]
    args = [*columns, "tokenizer.min_frequency=1"]
    folder.ok("augment", "data.train_file=pairs.jsonl", *args, "augment=drop", "augment.drop.texts=second", "output=more.csv")
    rows, source = list(csv.DictReader((folder / "more.csv").open())), {row["premise"] for row in pairs(80)}
    assert all(row["premise"] in source for row in rows) and rows[0]["label"] in ("same", "other")
    folder.ok("train", "data.train_file=more.csv", *args, *SMALL["lstm"], "training.epochs=1")


def test_a_preview_is_plain_where_no_terminal_listens(reviews: Folder):
    args = ["augment", *DATA, "augment=swap", "--preview"]
    shown = reviews.ok(*args, "rows=9").out.splitlines()
    assert "\x1b" not in "".join(shown) and sum(line.endswith(", epoch 0") for line in shown) == 9
    at = next(number for number, line in enumerate(shown) if line.startswith("  - "))  # a swap may undo another
    place, before, after = shown[at - 1 : at + 2]
    assert place.startswith("reviews.csv:") and after.startswith("  + ") and before[4:] != after[4:]
    assert sorted(before[4:].split()) == sorted(after[4:].split())
    assert reviews.ok(*args, "rows=9").out.splitlines() == shown
    assert reviews.ok(*args, "rows=9", "epoch=3").out.replace("epoch 3", "epoch 0").splitlines() != shown
    assert reviews.ok(*args, "rows=9999").out.count(", epoch 0\n") == 160
    assert not (reviews / "cache").exists() and not (reviews / "runs").exists()


def test_rows_that_stay_are_shown_once(reviews: Folder):
    shown = reviews.ok("augment", *DATA, "augment=swap", "augment.swap.probability=0.0", "preview=true").out.splitlines()
    assert len(shown) == 10 and all(line.startswith("  = ") for line in shown[1::2])


def test_on_a_terminal_changes_are_coloured(monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(console, "_stdout", lambda: Console(force_terminal=True, width=40))
    console.before_and_after("here", [("one ", False), ("two\x07", True)], [("one ", False), ("2", True)])
    out = capsys.readouterr().out
    assert "\x1b[9;31mtwo\\x07" in out and "\x1b[1;32m2" in out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["augment=drop"], 2, ["output: is not set", "--preview"]),
        (["augment=drop", "output=x.txt"], 2, [".jsonl", ".csv"]),
        (["--preview"], 2, ["no augmenter of texts"]),
        (["augment=drop", "output=nowhere/x.csv"], 3, ["in a folder that exists"]),
        (["augment=drop", "output=reviews.csv"], 3, ["take the place of their source"]),
        (["augment=synonyms", "augment.synonyms.file=mine.txt", "--preview"], 3, ["no such file of synonyms"]),
        (["augment=drop", "task=causal_lm", "model=gpt", "data.label_column=null", "--preview"], 2, ["joins its rows"]),
        (["augment=drop", "output=x.csv", "copies=0"], 2, ["copies"]),
    ],
)
def test_mistakes(reviews: Folder, args: list[str], code: int, words: list[str]):
    before = sorted(path.name for path in Path(reviews.path).iterdir())
    refused = reviews("augment", *DATA, *args)
    assert refused.code == code and all(word in refused.err for word in words), refused.err
    assert sorted(path.name for path in Path(reviews.path).iterdir()) == before


def test_the_flag_is_of_this_verb_alone(reviews: Folder):
    assert reviews("train", *DATA, "--preview").code == 2
    assert "--preview" in reviews("augment", "--help").out and "--preview" not in reviews("train", "--help").out


def test_a_changed_file_of_synonyms_stops_a_resume(reviews: Folder):
    (reviews / "mine.txt").write_text("film, movie\n")
    args = ["train", *DATA, *SMALL["lstm"], "augment=synonyms", "augment.synonyms.file=mine.txt", "training.epochs=2"]
    args += ["training.save_every=3", "training.keep_checkpoints=9", "run_name=mine"]
    reviews.ok(*args)
    run = reviews.latest("mine")
    (run / "result.json").unlink()
    (reviews / "mine.txt").write_text("film, movie, picture\n")
    refused = reviews(*args)
    assert refused.code == 4 and "augment: mine.txt" in refused.err and "allow_drift=[augment]" in refused.err
    (reviews / "mine.txt").write_text("film, movie\n")
    reviews.ok(*args)


@pytest.mark.parametrize(("lowercase", "is_told"), [("true", True), ("false", False)])
def test_case_that_the_tokenizer_does_not_see_is_told(reviews: Folder, lowercase: str, is_told: bool):
    args = [*SMALL["lstm"], "data.train_file=reviews.csv", "augment=[casing,drop]", "training.max_steps=1"]
    told = reviews.ok("train", *args, f"tokenizer.lowercase={lowercase}", f"run_name=case-{lowercase}").err
    assert ("augment.casing changes nothing" in told) == is_told
