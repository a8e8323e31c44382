"""`llmtune inspect` tells what is odd about rows of every kind, and what it names removes it."""

import shlex

import pytest

from tests.pipeline.conftest import SMALL, Folder, pairs, points, read, sentences, write_rows


def seen(folder: Folder, *args: str) -> dict:
    folder.ok("inspect", *args)
    (latest,) = folder.path.glob("runs/*/inspect/latest")
    page = (latest / "inspect.html").read_text(encoding="utf-8")
    assert "<script" not in page and "http-equiv" in page and "src=" not in page
    return read(latest / "inspect.json")


def kinds(found: dict) -> dict[tuple[str, str], int]:
    return {(f["kind"], f["split"]): f["rows"] for f in found["findings"]}


@pytest.fixture
def odd(folder: Folder) -> Folder:
    rows = [{"text": row["text"], "label": row["label"]} for row in sentences(240)]
    rows[3]["text"] += " <br />"
    rows[4]["text"] = ""
    rows[10]["text"] = rows[11]["text"]
    rows[12]["text"] = rows[14]["text"] + "!"
    for i in (20, 31):
        rows[i]["label"] = "negative" if rows[i]["label"] == "positive" else "positive"
    write_rows(folder / "train.csv", rows)
    write_rows(folder / "test.csv", [rows[0], *({"text": r["text"], "label": r["label"]} for r in sentences(40, seed=9))])
    return folder


FILES = ["data.train_file=train.csv", "data.test_file=test.csv"]


def test_what_is_odd_is_found_with_its_line(odd: Folder):
    found = seen(odd, *FILES)
    told = kinds(found)
    assert told["html", "train"] == 1 and told["blank", "train"] == 1 and told["mislabelled", "train"] >= 2
    assert told["leaks", "test"] == 1 and told["duplicates", "train"] >= 1 and told["contradictions", "train"] >= 2
    html = next(f for f in found["findings"] if f["kind"] == "html")
    assert html["examples"][0]["place"] == "train.csv:5" and html["overrides"] == ["clean=[html]"]
    wrong = {row["place"] for row in found["suspicious_labels"]}
    assert {"train.csv:22", "train.csv:33"} & wrong
    assert found["splits"]["validation"]["set_aside"] and not found["splits"]["test"]["set_aside"]
    assert found["given_rows"] == {"train": 240, "test": 41}


def test_what_it_names_removes_it(odd: Folder):
    found = seen(odd, *FILES)
    again = seen(odd, *FILES, *found["remedy"])
    gone = {"html", "blank", "duplicates", "near_duplicates", "contradictions", "leaks", "near_leaks"}
    assert not gone & {f["kind"] for f in again["findings"] if f["split"] == "train" or f["kind"].endswith("leaks")}
    assert set(again["cleaned_by"]) >= {"html", "length"}


def test_the_terminal_tells_places_and_a_command(odd: Folder):
    told = odd.ok("inspect", *FILES).out
    assert "train.csv:5" in told and "clean=[html]" in told and "inspect.html" in told
    command = shlex.split(next(line for line in told.splitlines() if "llmtune train" in line).split("all of it")[1])
    odd.ok("show", "train", *command[2:])


def test_it_writes_nothing_else_and_looks_the_same_twice(odd: Folder):
    first = seen(odd, *FILES)
    second = seen(odd, *FILES)
    assert first == second
    top = {path.name for path in odd.path.iterdir()}
    assert top == {"train.csv", "test.csv", "runs"}
    assert {path.name for path in (odd / "runs").rglob("*") if path.is_file()} == {"inspect.json", "inspect.html"}


def test_language_models(folder: Folder):
    write_rows(folder / "lines.txt", sentences(80))
    with (folder / "lines.txt").open("a") as lines:
        lines.write("<br>  two  blanks\nhttp://a.b/c\n")
    args = [*SMALL["gpt"], "task=causal_lm", "data.train_file=lines.txt", "data.label_column=null", "run_name=lm"]
    told = seen(folder, *args)
    for words in (told["remedy"], *(f["overrides"] for f in told["findings"])):
        folder.ok("show", "train", *args, *words)
    assert told["splits"]["train"]["tokens"] and "cut" in told["splits"]["train"] and told["classes"] == {}


def test_pairs(folder: Folder):
    write_rows(folder / "pairs.csv", pairs(120))
    told = seen(folder, "data.train_file=pairs.csv", "data.text_column=premise", "data.text_pair_column=hypothesis")
    assert set(told["classes"]["train"]) == {"same", "other"} and told["splits"]["train"]["columns"][:2] == [
        "text",
        "text_pair",
    ]


def test_numbers(folder: Folder):
    rows = [{**row, "c": "1.0"} for row in points(120)]
    rows[7]["y"], rows[9] = "1e9", rows[8]
    write_rows(folder / "points.csv", rows)
    args = ["model=mlp", "task=regression", "data.text_column=null", "data.feature_columns=[u,v,c]", "data.label_column=y"]
    told = seen(folder, "data.train_file=points.csv", *args, "split.test_fraction=0", "split.validation_fraction=0")
    assert kinds(told) == {
        ("constant_features", "train"): 120,
        ("far_targets", "train"): 1,
        ("same_numbers", "train"): 1,
    }
    assert told["remedy"] == ["data.feature_columns=[u,v]"] and told["splits"]["train"]["targets"]["max"] == 1e9


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("text,label\nonly,a\n", "no_split"),
        ("text,label\n" + '" ",a\n' * 20, "blank"),
        ("text,other\n" + "".join(f"row {i},a\n" for i in range(20)), "no_label_column"),
        ("text,label\n" + "".join(f"row {i},\n" for i in range(20)), "no_label"),
        ("text,label\n" + "".join(f"好电影😀 {i},a\n" for i in range(20)), None),
    ],
)
def test_poor_data_is_looked_at_all_the_same(folder: Folder, content: str, kind: str | None):
    (folder / "poor.csv").write_text(content, encoding="utf-8")
    found = {f["kind"] for f in seen(folder, "data.train_file=poor.csv")["findings"]}
    assert kind is None or kind in found


def test_mistakes_are_told_as_by_train(folder: Folder):
    assert folder("inspect", "data.train_file=nowhere.csv").code == 3
    assert folder("inspect", "data.train_file=x.csv", "training.batch_size=-1").code == 2
