"""Every override that a finding can name composes and decodes, alone and all together."""

import numpy as np
import pyarrow as pa
import pytest

from llmtune.config import compose
from llmtune.config.yaml_source import read_yaml
from llmtune.inspection import copies
from llmtune.inspection.findings import CLEANERS, KINDS, Finding, examples, overrides, together
from tests.configs.test_every_option import ROOT

FACTS = {
    "bound": 7,
    "length": 640,
    "label_map": "{Good: 'good', very\\ bad: 'bad'}",
    "shingle_size": 3,
    "other": "test",
    "others": "[x,y]",
    "columns": "z",
    "ratio": "12",
    "least": 10,
    "why": "too few rows",
    "column": "label",
}
NEEDS = {"constant_features": ["model=mlp", "task=regression", "data.text_column=null"]}


@pytest.mark.parametrize("kind", KINDS)
def test_override_composes_and_decodes(kind: str):
    words = overrides(kind, FACTS)
    config = compose.compose("train", ["data.train_file=x.csv", *NEEDS.get(kind, []), *words]).config
    for word in words:
        key, value = word.split("=", 1)
        if key == "clean":
            assert list(config.clean) == value.strip("[]").split(",")
    assert Finding(kind, "train", 1, 2, facts=FACTS).title and KINDS[kind].weight in ("fix", "look", "note")
    assert words or KINDS[kind].advice


def test_label_map_names_labels_with_blanks():
    config = compose.compose("train", ["data.train_file=x.csv", *overrides("alike_labels", FACTS)]).config
    assert config.data.label_map == {"Good": "good", "very bad": "bad"}


def test_all_together_compose():
    kinds = [kind for kind in KINDS if kind not in NEEDS]
    words = together([Finding(kind, "train", 1, 2, facts=FACTS) for kind in kinds])
    config = compose.compose("train", ["data.train_file=x.csv", *words]).config
    assert "near_duplicates" in config.clean and "mislabelled" not in config.clean  # which a human has to decide
    assert [name for name in CLEANERS if name in config.clean] == list(config.clean)


def test_cleaners_are_merged_in_an_order_that_makes_sense():
    found = [
        Finding(kind, "train", 1, 2, facts=FACTS) for kind in ("mislabelled", "duplicates", "html", "near_duplicates", "urls")
    ]
    assert together(found) == ["clean=[html,near_duplicates]", "clean.near_duplicates.shingle_size=3"]
    assert together([Finding("html", "train", 1, 2)], already=["whitespace"]) == ["clean=[html,whitespace]"]
    assert together([Finding("urls", "train", 1, 2)], already=["whitespace"]) == []


def test_each_key_is_set_once():
    found = [Finding("cut", split, 1, 2, facts={"length": length}) for split, length in (("train", 600), ("test", 700))]
    assert together(found) == ["tokenizer.max_length=600"]


def test_all_cleaners_are_known():
    packaged = {file.stem for file in (ROOT / "configs" / "clean").glob("*.yaml")} - {"none"}
    assert packaged == set(CLEANERS)
    for name in ("near_duplicates", "near_leaks"):
        option = read_yaml(ROOT / "configs" / "clean" / f"{name}.yaml").tree[name]
        assert option["threshold"] == copies.THRESHOLD and option["shingle_size"] == 5


def test_an_example_is_shown_around_what_it_is_an_example_of():
    table = pa.table({"text": ["ü" * 500 + "<br>" + "b" * 500, "short <br>"], "file": ["f.csv"] * 2, "row": [2, 9]})
    long, short = examples(table, np.array([0, 1]), ["note"], around="<br>")
    assert "<br>" in long.text and long.text.startswith("…ü") and long.text.endswith("b…") and len(long.text) < 250
    odd = pa.table({"text": ["a\u200bb\x92 c\xa0d"], "file": ["f"], "row": [1]})
    assert examples(odd, np.array([0]))[0].text == "a\\u200bb\\x92 c\\xa0d"
    assert (short.text, short.place, short.note, long.note) == ("short <br>", "f.csv:9", "", "note")
