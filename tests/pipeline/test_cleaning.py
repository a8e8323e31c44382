"""clean= from end to end: the rows that a model learns from, those that it judges later, and what is told of them."""

import json

import pytest

from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, write_rows

RUN = "runs/mine/latest"
CLEAN = ["clean=[html,whitespace,length,duplicates,leaks]", "clean.length.min=8"]
SHORT = ["training.epochs=2", "tokenizer.min_frequency=1", "optimizer.lr=.01", "run_name=mine"]


def dirty(text: str) -> str:
    return f"<p>{text.replace(' ', '&nbsp; ')}</p><br />"


@pytest.fixture(scope="module")
def finished(shared: Folder) -> Folder:
    """A run on dirty rows: of 205 train rows two are doubles, two leak, and one is too short."""
    rows = [{"text": dirty(row["text"]), "label": row["label"]} for row in sentences(200)]
    test = [{"text": dirty(row["text"]), "label": row["label"]} for row in sentences(40, seed=5)]
    train = [*rows, rows[0], rows[1], test[0], test[1], {"text": "<b>ok</b>", "label": "positive"}]
    write_rows(shared / "train.csv", train)
    write_rows(shared / "test.csv", [*test, test[2]])
    data = ["data.train_file=train.csv", "data.test_file=test.csv"]
    shared.told = shared.ok("run", *SMALL["lstm"], *data, *CLEAN, *SHORT, "export=huggingface")
    return shared


def test_the_account_is_kept_and_told(finished: Folder):
    kept = read(finished.latest("mine") / "data.json")
    of_train = {entry["stage"]: entry for entry in kept["splits"]["train"]}
    assert of_train["read"]["rows_out"] == 205
    assert of_train["clean.html"]["changed"] == 205
    assert of_train["clean.length"]["left_out"] == {"fewer than 8 characters": 1}
    assert of_train["clean.duplicates"]["left_out"]["duplicate"] >= 2
    assert of_train["clean.leaks"]["left_out"]["also in test"] == 2
    assert kept["splits"]["test"][-1]["rows_out"] == 40
    written = read_lines(finished / kept["dropped"])
    assert {row["reason"] for row in written} >= {"duplicate", "also in test", "fewer than 8 characters"}
    assert "clean.leaks" in finished.told.out and "-2 also in test" in finished.told.out
    assert "also stand in the train rows" not in finished.told.err


def test_later_texts_are_cleaned_as_those_of_training_and_every_row_gets_an_answer(finished: Folder):
    """Row for row: `predict` of lines and tables, and `evaluate file=`, judge what training would have seen."""
    texts = [row["text"] for row in sentences(6, seed=9)]
    given = [dirty(text) for text in texts] + [dirty(texts[0]), "<b>ok</b>"]  # a double, and a short one
    plain = [*texts, texts[0], "ok"]
    clean_rows = [json.loads(line) for line in finished.ok("predict", RUN, stdin="\n".join(plain)).out.splitlines()]
    as_lines = [json.loads(line) for line in finished.ok("predict", RUN, stdin="\n".join(given)).out.splitlines()]
    write_rows(finished / "new.csv", [{"text": text, "label": "positive"} for text in given])
    as_table = [json.loads(line) for line in finished.ok("predict", RUN, "new.csv").out.splitlines()]
    assert [row["text"] for row in as_lines] == [row["text"] for row in as_table] == given
    for mine, lines, in_table in zip(clean_rows, as_lines, as_table, strict=True):
        assert mine["probabilities"] == lines["probabilities"] == in_table["probabilities"]
    finished.ok("evaluate", RUN, "file=new.csv")
    scored = read_lines(finished.latest("mine") / "evaluation" / "new.csv" / "predictions.jsonl")
    assert [row["text"] for row in scored] == plain
    assert [row["prediction"] for row in scored] == [row["label"] for row in clean_rows]


def test_an_export_tells_how_texts_were_cleaned_and_cleans_them(finished: Folder):
    export = finished.latest("mine") / "export" / "huggingface"
    assert [section["type"] for section in read(export / "llmtune.json")["clean"]] == ["html", "whitespace"]
    assert "html (tags True, entities True); then whitespace" in (export / "README.md").read_text()
    line = dirty("a superb film")
    assert finished.ok("predict", str(export), stdin=line).out == finished.ok("predict", RUN, stdin=line).out


def test_evaluate_and_export_find_the_rows_again_without_the_cache(finished: Folder):
    (finished / "cache").rename(finished / "old-cache")
    metrics = read(finished.latest("mine") / "evaluation" / "test" / "metrics.json")
    finished.ok("evaluate", RUN)
    assert read(finished.latest("mine") / "evaluation" / "test" / "metrics.json") == metrics


def test_other_cleaners_and_another_order_are_other_rows(finished: Folder):
    args = ["preprocess", "data.train_file=train.csv", "data.test_file=test.csv", *SMALL["lstm"]]
    told = [finished.ok(*args, f"clean={names}").out for names in ("none", "[html]", "[html,control]", "[control,html]")]
    places = [next(line for line in out.splitlines() if "prepared data" in line) for out in told]
    assert len(set(places)) == 4


def test_a_finetune_stage_cleans_as_the_first_unless_it_says_otherwise(finished: Folder):
    write_rows(finished / "small.csv", [{"text": dirty(row["text"]), "label": row["label"]} for row in sentences(60, seed=3)])
    recipe = "data: {train_file: small.csv}\nfinetune:\n  training: {epochs: 1}\n"
    (finished / "recipes").mkdir()
    (finished / "recipes" / "two.yaml").write_text(recipe)
    (finished / "recipes" / "other.yaml").write_text(recipe + "  clean: {control: {type: control}}\n")
    shared = [*SMALL["lstm"], "training.epochs=1", "clean=[html,whitespace]", "export=none"]
    for name, wanted in (("two", ["clean.html", "clean.whitespace"]), ("other", ["clean.control"])):
        told = finished.ok("run", f"+recipe={name}", *shared).err
        assert ("learned from texts that were cleaned otherwise: html" in told) == (name == "other")
        stages = [entry["stage"] for entry in read(finished.latest(name) / "finetune" / "data.json")["splits"]["train"]]
        assert [stage for stage in stages if stage.startswith("clean.")] == wanted


def test_a_leak_is_told_with_what_helps(finished: Folder):
    args = ["preprocess", "data.train_file=train.csv", "data.test_file=test.csv", *SMALL["lstm"]]
    assert "clean=leaks" in finished.ok(*args, "clean=urls").err


def test_a_mask_is_not_taken_for_a_tag(folder: Folder):
    write_rows(folder / "rows.csv", [{"text": row["text"], "label": row["label"]} for row in sentences(60)])
    data = ["task=masked_lm", "data.train_file=rows.csv", "data.label_column=null", "tokenizer.min_frequency=1"]
    folder.ok("train", *SMALL["bert"], *data, "training.epochs=1", "run_name=mine", "clean=[html,whitespace]")
    row = json.loads(folder.ok("predict", RUN, stdin="<i>a</i>   [MASK] film").out)
    assert row["text"] == "<i>a</i>   [MASK] film" and len(row["masks"]) == 1


CONTRADICTIONS = {
    "numbers": (["model=mlp", "data.feature_columns=[x]", "data.text_column=null", "clean=html"], "clean: cleaners read texts"),
    "no bounds": (["clean=length", "clean.length.min=null"], "clean.length.min: is null"),
    "no text fits": (["clean=length", "clean.length.min=5", "clean.length.max=3"], "at least 5 and at most 3"),
    "no classes": (["clean=mislabelled", "task=regression"], "clean.mislabelled: needs classes"),
    "nothing held out": (["clean=leaks", "split.validation_fraction=0", "split.test_fraction=0"], "clean.leaks: never acts"),
    "lines": (["clean=whitespace", "task=causal_lm", "model=gpt"], "clean.whitespace.keep_lines"),
    "no such cleaner": (["clean=htlm"], "did you mean 'html'"),
    "a threshold of nothing": (["clean=near_leaks", "clean.near_leaks.threshold=0"], "clean.near_leaks.threshold"),
}


@pytest.mark.parametrize(("args", "told"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_mistakes(folder: Folder, args: list[str], told: str):
    done = folder("preprocess", "data.train_file=x.csv", *args)
    assert done.code == 2 and told in done.err
