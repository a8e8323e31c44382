"""The grammar of the command line, as a person who knows Hydra expects it."""

import json
from pathlib import Path

import pytest

from llmtune.cli import quote
from llmtune.config import compose, saved
from llmtune.errors import ConfigError

DATA = "data.train_file=x.csv"
RECIPE = """\
# llmtune train +recipe=mine
defaults:
  - override /model: bert
  - override /optimizer: sgd
data: {train_file: mine.csv}
optimizer: {lr: 3e-2}
"""


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(RECIPE)
    return tmp_path


def tree_of(*args: str, verb: str = "train", config_dir: Path | None = None) -> dict:
    return compose.compose(verb, args, config_dir=config_dir).tree


def test_groups_and_values():
    tree = tree_of(DATA, "model=bert", "optimizer=sgd", "optimizer.lr=3e-5", "seed=7", "training.epochs=0.5")
    assert (tree["model"]["type"], tree["optimizer"]["type"], tree["optimizer"]["lr"], tree["seed"]) == ("bert", "sgd", 3e-5, 7)


def test_the_order_of_overrides_does_not_matter():
    args = [DATA, "model=bert", "model.size=mini", "+recipe=mine"]
    assert tree_of(*args) == tree_of(*reversed(args))


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_recipe_with_any_sign(sign: str):
    tree = tree_of(f"{sign}recipe=mine")
    assert tree["model"]["type"] == "bert" and tree["optimizer"]["lr"] == 0.03 and tree["run_name"] == "mine"


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_value_with_any_sign(sign: str):
    assert tree_of(DATA, f"{sign}optimizer.lr=0.5")["optimizer"]["lr"] == 0.5


def test_overrides_win_over_the_recipe():
    tree = tree_of("+recipe=mine", "optimizer.lr=0.25", "model=lstm", "data.train_file=other.csv")
    assert (tree["optimizer"]["lr"], tree["model"]["type"], tree["data"]["train_file"]) == (0.25, "lstm", "other.csv")


def test_a_recipe_inherits_from_another(user_folder: Path):
    (user_folder / "recipes" / "child.yaml").write_text("defaults: [mine, _self_]\noptimizer: {momentum: 0.5}\n")
    tree = tree_of("+recipe=child")
    assert (tree["optimizer"]["momentum"], tree["optimizer"]["lr"], tree["model"]["type"]) == (0.5, 0.03, "bert")


def test_list_groups():
    assert list(tree_of(DATA, "augment=[swap,drop]")["augment"]) == ["swap", "drop"]
    assert list(tree_of(DATA, "augment=[drop,swap]")["augment"]) == ["drop", "swap"]
    only = tree_of(DATA, "augment=drop", "augment.drop.rate=.3")["augment"]
    assert list(only) == ["drop"] and (only["drop"]["type"], only["drop"]["rate"]) == ("drop", 0.3)
    assert tree_of(DATA, "augment=none")["augment"] == {}
    assert list(tree_of(DATA, "augment=[drop,swap]", "~augment.drop")["augment"]) == ["swap"]
    again = tree_of(DATA, "augment=[drop]", "+augment.again={type: drop, rate: .9}")["augment"]
    assert list(again) == ["drop", "again"] and again["again"] == {**again["drop"], "rate": 0.9}


def test_export_may_be_none_one_or_both():
    assert tree_of(DATA, "export=none")["export"] == {}
    assert list(tree_of(DATA, "export=onnx")["export"]) == ["onnx"]
    assert list(tree_of(DATA)["export"]) == ["huggingface", "onnx"]


def test_leaving_out_a_key_gives_its_packaged_value_back(user_folder: Path):
    tree = tree_of("+recipe=mine", "~optimizer.lr", "~model.pretrained")
    assert tree["optimizer"]["lr"] == tree_of(DATA, "optimizer=sgd")["optimizer"]["lr"] != 0.03
    assert tree["model"]["pretrained"] is None
    with pytest.raises(ConfigError, match="data.train_file: is not set"):
        tree_of("+recipe=mine", "~data.train_file")


def test_a_mapping_of_the_users_own_keys_is_replaced(user_folder: Path):
    (user_folder / "recipes" / "some.yaml").write_text(
        "data: {train_file: a.csv, where: {source: imdb}, label_map: {'0': bad}}\n"
    )
    assert tree_of("+recipe=some")["data"]["where"] == {"source": "imdb"}
    assert tree_of("+recipe=some", "data.where={}")["data"]["where"] == {}
    assert tree_of("+recipe=some", "data.where={lang: en}")["data"]["where"] == {"lang": "en"}
    assert tree_of("+recipe=some", "~data.where")["data"]["where"] == {}


def test_config_dir_adds_options_and_recipes(user_folder: Path):
    folder = user_folder / "mine"
    (folder / "optimizer").mkdir(parents=True)
    (folder / "recipes").mkdir()
    (folder / "optimizer" / "brisk.yaml").write_text("type: sgd\nlr: 0.7\nweight_decay: 0.0\nmomentum: 0.0\nnesterov: false\n")
    (folder / "recipes" / "quick.yaml").write_text("defaults:\n  - override /optimizer: brisk\ndata: {train_file: q.csv}\n")
    assert tree_of(DATA, "optimizer=brisk", config_dir=folder)["optimizer"]["lr"] == 0.7
    assert tree_of("+recipe=quick", config_dir=folder)["optimizer"]["lr"] == 0.7
    with pytest.raises(ConfigError, match="brisk"):
        tree_of(DATA, "optimizer=brisk")


def test_a_shadowed_recipe_is_told(user_folder: Path):
    shipped = next(name for name, path in compose.recipes().items() if path.parent != Path("recipes"))
    (user_folder / "recipes" / f"{shipped}.yaml").write_text(RECIPE)
    composed = compose.compose("train", [f"+recipe={shipped}"])
    assert len(composed.notices) == 1 and shipped in composed.notices[0]
    assert composed.tree["data"]["train_file"] == "mine.csv"


@pytest.mark.parametrize(
    "path",
    [
        "runs/a",
        "a b",
        "it's",
        '"x"',
        "a\\",
        "a\\'b",
        "${oc.env:HOME}",
        "$(id)",
        "a,b",
        "[a]",
        "{a: b}",
        "x=y",
        "ü",
        " a",
        "a\\\\",
    ],
)
def test_a_word_arrives_as_it_was_typed(path: str):
    assert compose.compose("evaluate", [f"run={quote(path)}"]).config.run == path
    assert compose.compose("finetune", [DATA, "model=run", f"model.path={quote(path)}"]).config.model.path == path


def test_an_interpolation_is_resolved_for_every_verb(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMTUNE_TEST_FOLDER", "there")
    for verb, args in (("train", []), ("finetune", ["model=run", "model.path=runs/a"])):
        tree = tree_of("data.train_file=${oc.env:LLMTUNE_TEST_FOLDER}/x.csv", *args, verb=verb)
        assert tree["data"]["train_file"] == "there/x.csv", verb


def test_sweep_points():
    points = compose.sweep_points("train", ["recipe=mine", "optimizer.lr=0.1,0.3", "model=bert,lstm", "seed=range(0,2)"])
    assert len(points) == 8
    assert points[0] == ["recipe=mine", "optimizer.lr=0.1", "model=bert", "seed=0"]
    assert points[-1] == ["recipe=mine", "optimizer.lr=0.3", "model=lstm", "seed=1"]


def test_sweep_over_lists_and_recipes(user_folder: Path):
    (user_folder / "recipes" / "other.yaml").write_text(RECIPE.replace("sgd", "adamw"))
    points = compose.sweep_points("train", ["+recipe=mine,other", "augment=[drop],[drop,swap]"])
    assert points == [[f"+recipe={r}", f"augment={a}"] for r in ("mine", "other") for a in ("[drop]", "[drop,swap]")]


def test_one_bad_point_stops_the_whole_sweep():
    with pytest.raises(ConfigError) as caught:
        compose.sweep_points("train", [DATA, "optimizer.lr=1e-3,-1,1e-4"])
    assert len(caught.value.problems) == 1
    assert "optimizer.lr=-1" in caught.value.problems[0]


def test_a_sweep_of_a_million_points_is_refused():
    with pytest.raises(ConfigError, match="1000000 points"):
        compose.sweep_points("train", [DATA, "seed=range(0,1000)", "training.log_every=range(1,1001)"])


def test_several_values_without_multirun_name_the_flag():
    with pytest.raises(ConfigError, match="-m"):
        tree_of(DATA, "optimizer.lr=1e-3,1e-4")


@pytest.mark.parametrize("value", ["ü.csv", "数据/评论.csv", "~/x.csv", "a b é"])
def test_plain_words_of_any_script(value: str):
    assert tree_of(f"data.train_file={value}")["data"]["train_file"] == value
    assert len(compose.sweep_points("train", [f"data.train_file={value}", "seed=1,2"])) == 2


def test_a_faulty_recipe_is_one_mistake(user_folder: Path):
    (user_folder / "recipes" / "tab.yaml").write_text("data:\n\ttrain_file: x.csv\n")
    for arg in ("+recipe=tab", "+recipe=mien"):
        with pytest.raises(ConfigError) as caught:
            tree_of(arg)
        assert len(caught.value.problems) == 1, caught.value.problems


@pytest.mark.parametrize(
    ("args", "key"),
    [
        (["model=bert", "model.pretrained=a/b", "model.num_layers=2"], "model.num_layers"),
        (["training.early_stopping_patience=1", "split.validation_fraction=0"], "training.early_stopping_patience"),
        (["training.epochs=1e300"], "training.epochs"),
        (["data.train_file=[]"], "data.train_file"),
        (["model.embedding_size=99999999999999999999"], "model.embedding_size"),
    ],
)
def test_what_cannot_be_meant_is_refused(args: list[str], key: str):
    with pytest.raises(ConfigError) as caught:
        tree_of(DATA, *args)
    assert len(caught.value.problems) == 1 and caught.value.problems[0].startswith(f"{key}:"), caught.value.problems


def test_a_number_for_a_text_wants_quotes():
    with pytest.raises(ConfigError, match="data.where.year: is 2020; expected text; put quotes around it"):
        tree_of(DATA, "data.where={year: 2020}")
    assert tree_of(DATA, "data.where={year: '2020'}")["data"]["where"] == {"year": "2020"}


def test_what_an_entry_leaves_out_has_the_packaged_value(user_folder: Path):
    (user_folder / "recipes" / "two.yaml").write_text(
        "data: {train_file: a.csv, where: {type: files}}\n"
        "augment: {mine: {type: swap, rate: .5}}\n"
        "finetune: {augment: {other: {type: drop}}}\n"
    )
    tree = tree_of("+recipe=two", verb="run")
    packaged = tree_of(DATA, "augment=[swap,drop]")["augment"]
    assert tree["augment"] == {"mine": {**packaged["swap"], "rate": 0.5}}
    assert tree["finetune"]["augment"] == {"other": packaged["drop"]}
    assert tree["data"]["where"] == {"type": "files"}


def test_an_older_run_gets_the_packaged_values_of_its_entries(tmp_path: Path):
    composed = compose.compose("train", [DATA, "augment=drop"])
    old = json.loads(json.dumps(composed.tree))
    old["augment"] = {"drop": {"type": "drop", "rate": 0.1}}
    saved.write(tmp_path / "config.yaml", old, header="old")
    config, added = saved.read(tmp_path / "config.yaml")
    assert config == composed.config and "augment.drop.probability=1.0" in added
