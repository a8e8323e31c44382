"""Every option of every group, every recipe and every verb composes and decodes; a saved config decodes to an equal object."""

from pathlib import Path

import pytest
import yaml

from llmtune.config import compose, reference
from llmtune.config.schema import VERB_CONFIGS
from llmtune.config.yaml_source import read_yaml

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = sorted((file.parent.name, file.stem) for file in (ROOT / "configs").glob("*/*.yaml"))
RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))

# What an option needs beside it to make a run that can be trained.
NEEDS = {
    ("data", "hub"): ["data.name=imdb"],
    ("model", "run"): ["model.path=runs/x"],
    ("model", "mlp"): ["data.feature_columns=[x]"],
    **{
        ("tuning", name): ["model=bert", "model.pretrained=a/b"]
        for name in ("head", "gradual", "lora", "rslora", "dora", "pissa", "qlora", "ia3", "prefix", "prompt")
    },
    ("tuning", "pattern"): ["model=bert", "model.pretrained=a/b", "tuning.freeze=['*embeddings*']"],
    ("split", "grouped"): ["split.group_column=author"],
    ("split", "time"): ["split.time_column=day"],
    ("tokenizer", "pretrained"): ["model=bert", "model.pretrained=a/b"],
    ("balance", "class_weights"): ["balance.class_weights.by_label={rare: 5}"],
    ("task", "causal_lm"): ["model=gpt"],
    ("task", "masked_lm"): ["model=bert"],
    ("optimizer", "schedule_free"): ["schedule=constant"],
    ("task", "instruction"): ["model=gpt"],
    ("task", "preference"): ["model=gpt", "model.pretrained=a/b"],
    ("export", "gguf"): ["task=causal_lm", "model=gpt", "tokenizer.lowercase=false"],
    ("augment", "contextual"): ["augment.contextual.model=a/b"],
}


def test_all_are_read():
    assert len(OPTIONS) >= 35
    assert len(RECIPES) >= 4
    assert {group: sorted(options) for group, options in compose.groups().items()} == {
        group: sorted(name for g, name in OPTIONS if g == group) for group, _ in OPTIONS
    }


def without(tree: dict, keys: set[str]) -> dict:
    """A section, or several by name, without some of the keys."""
    return {k: without(v, keys) if isinstance(v, dict) else v for k, v in tree.items() if k not in keys}


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_option_composes_and_decodes(group: str, option: str):
    data = [] if (group, option) == ("data", "hub") else ["data.train_file=x.csv"]
    composed = compose.compose("train", [*data, f"{group}={option}", *NEEDS.get((group, option), [])])
    section = composed.tree[group]
    own = read_yaml(ROOT / "configs" / group / f"{option}.yaml").tree
    needed = {need.split("=")[0].split(".")[-1] for need in NEEDS.get((group, option), [])} | {"train_file"}
    assert without(section, needed) == without(own, needed)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_composes_and_saves(name: str):
    composed = compose.compose("run", [f"+recipe={name}"])
    assert composed.recipe == name
    saved = yaml.safe_load(compose.to_yaml(composed.tree))
    assert compose.decode(saved, VERB_CONFIGS["run"]) == composed.config


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_a_header_and_stays_short(name: str):
    lines = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert f"recipe={name}" in compose.recipe_header(ROOT / "recipes" / f"{name}.yaml")
    assert len([line for line in lines if not line.startswith("#")]) <= 40


@pytest.mark.parametrize("verb", VERB_CONFIGS)
def test_verb_decodes_and_saves(verb: str):
    args = {
        "augment": ["data.train_file=x.csv", "augment=drop", "preview=true"],
        "evaluate": ["run=runs/x"],
        "predict": ["run=runs/x"],
        "chat": ["run=runs/x"],
        "export": ["run=runs/x"],
        "average": ["runs=[runs/x,runs/y]"],
    }.get(verb, ["data.train_file=x.csv"])
    args += ["model=run", "model.path=runs/x"] if verb == "finetune" else []
    composed = compose.compose(verb, args)
    assert compose.decode(yaml.safe_load(compose.to_yaml(composed.tree)), VERB_CONFIGS[verb]) == composed.config


@pytest.mark.parametrize(
    "value", ["no", "1", "1e5", "null", "a: b", "${x}", "'", '"', "#", "- a", "ü\u2028", "0x1f", "2026-01-01", "~", "a\nb"]
)
def test_awkward_text_survives_saving(value: str, tmp_path: Path):
    composed = compose.compose("train", ["data.train_file=x.csv"])
    tree = {**composed.tree, "output_dir": value, "data": {**composed.tree["data"], "where": {"source": value}}}
    config = compose.decode(tree, VERB_CONFIGS["train"])
    saved = tmp_path / "config.yaml"
    saved.write_text(compose.to_yaml(tree), encoding="utf-8")
    assert config.output_dir == value
    assert compose.decode(read_yaml(saved).tree, VERB_CONFIGS["train"]) == config
    assert yaml.safe_load(saved.read_text(encoding="utf-8"))["output_dir"] == value


def test_every_key_has_help():
    for verb, schema in VERB_CONFIGS.items():
        for section in [schema, *(c for classes in reference.subsections(schema).values() for c in classes)]:
            assert section.__doc__, section
            for key in reference.keys(section):
                assert key.doc.endswith((".", ")")) and key.takes, f"{verb}: {section.__name__}.{key.name}"


def test_defaults_are_stated_once():
    """A default lives in YAML alone: no field of the schema has one."""
    for schema in VERB_CONFIGS.values():
        for section in [schema, *(c for classes in reference.subsections(schema).values() for c in classes)]:
            assert all(field.is_required() for field in section.model_fields.values()), section
