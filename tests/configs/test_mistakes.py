"""Each mistake ends with exit code 2 and a message that helps; nothing is written; all are told at once."""

import time
from pathlib import Path

import pytest

DATA = "data.train_file=x.csv"
START = ["model=gpt", "model.pretrained=a/b"]
LSTM = "model=lstm"

# the overrides, and what the message has to say
OVERRIDES = {
    "unknown key": (["optimizer.lrr=1"], ["optimizer.lrr", "did you mean 'lr'"]),
    "unknown key with +": (["+optimizer.lrr=1"], ["optimizer.lrr", "did you mean 'lr'"]),
    "unknown key with ++": (["++optimizer.lrr=1"], ["optimizer.lrr", "did you mean 'lr'"]),
    "unknown section": (["optimiser.lr=1"], ["optimiser", "did you mean 'optimizer'"]),
    "unknown top key": (["+sead=1"], ["sead", "did you mean 'seed'"]),
    "misspelt recipe key": (["+recpie=bert_cls"], ["recpie", "did you mean 'recipe'"]),
    "misspelt recipe": (["+recipe=berd_cls"], ["berd_cls", "did you mean", "bert_cls"]),
    "unknown option": (["model=lstn"], ["lstn", "did you mean 'lstm'"]),
    "unknown option, nothing near": (["model=zzz"], ["lstm", "mlp", "bert", "gpt", "run"]),
    "unknown option in a list": (["augment=[drop,swop]"], ["swop", "did you mean 'swap'"]),
    "key of another option": (["optimizer=sgd", "optimizer.beta1=.9"], ["optimizer.beta1", "adamw"]),
    "wrong type": (["training.batch_size=many"], ["training.batch_size", "'many'", "whole number"]),
    "text for a number": (["optimizer.lr='0.001'"], ["optimizer.lr", "number", "quotes"]),
    "number for a truth value": (["training.exact=1"], ["training.exact", "true or false"]),
    "zero rate": (["optimizer.lr=0"], ["optimizer.lr", "greater than 0"]),
    "negative rate": (["optimizer.lr=-1"], ["optimizer.lr", "greater than 0"]),
    "nan rate": (["optimizer.lr=nan"], ["optimizer.lr", "finite"]),
    "infinite rate": (["optimizer.lr=inf"], ["optimizer.lr", "finite"]),
    "null where none may be": (["optimizer.lr=null"], ["optimizer.lr", "null"]),
    "value for a section": (["optimizer=[]"], ["optimizer"]),
    "unknown type": (["optimizer.type=adamm"], ["adamm", "adamw"]),
    "unset mandatory value": (["model=run"], ["model.path", "is not set"]),
    "interpolation loop": (["output_dir=${run_name}", "run_name=${output_dir}"], ["nterpolation"]),
    "interpolation of nothing": (["output_dir=${nowhere}"], ["nowhere"]),
    "unset variable": (["output_dir=${oc.env:LLMTUNE_TEST_UNSET}"], ["LLMTUNE_TEST_UNSET"]),
    "bad grammar": (["optimizer.lr=[1"], ["optimizer.lr=[1", "^"]),
    "no key": (["=3"], ["=3"]),
    "package": (["model@task=lstm"], ["@"]),
    "warm-up longer than the run": (
        ["training.max_steps=10", "schedule.warmup_ratio=0", "schedule.warmup_steps=20"],
        ["warm-up", "max_steps=10"],
    ),
    "metric that is never computed": (["training.best_metric=bleu"], ["bleu", "accuracy"]),
    "no end": (["training.epochs=null"], ["training.epochs", "training.max_steps"]),
    "task and model": (["task=causal_lm", LSTM], ["causal_lm", "model=gpt"]),
    "augmented tags": (["task=tagging", "augment=[drop]", LSTM], ["augment", "tag for each word"]),
    "cleaned tags": (["task=tagging", "clean=[whitespace]", LSTM], ["clean.whitespace", "from their tags"]),
    "tags of pairs": (["task=tagging", "data.text_pair_column=b", LSTM], ["data.text_pair_column", "one text"]),
    "columns of one label": (["data.label_columns=[a,b]", LSTM], ["data.label_columns", "task=multilabel"]),
    "a separator of nothing": (
        ["task=multilabel", "data.label_columns=[a,b]", "data.label_separator='|'"],
        ["label_separator"],
    ),
    "unknown encoding": (["data.encoding=utf9"], ["data.encoding", "utf9"]),
    "dpo from scratch": (["task=preference", "model=gpt"], ["task.loss", "dpo", "model.pretrained", "orpo"]),
    "a margin of dpo": (["task=preference", "task.margin=1", *START], ["task.margin", "simpo"]),
    "smoothed orpo": (
        ["task=preference", "task.loss=orpo", "task.label_smoothing=.1", *START],
        ["label_smoothing", "loss=dpo"],
    ),
    "half of all pairs the wrong way round": (["task=preference", "task.label_smoothing=.5", *START], ["less than 0.5"]),
    "packed preferences": (["task=preference", "task.packing=true", *START], ["task.packing"]),
    "augmented preferences": (["task=preference", "augment=[drop]", *START], ["augment", "word by word", "augment=none"]),
    "smoothed preferences": (["task=preference", "objective=label_smoothing", *START], ["label_smoothing", "has none"]),
    "balanced preferences": (["task=preference", "balance=focal", *START], ["balance", "balance=none"]),
    "preferences of an encoder": (["task=preference", "model=bert"], ["preference needs model=gpt"]),
    "instructions of two answers": (["task=instruction", "model=gpt", "data.conversation=implicit"], ["task=preference"]),
    "a column of another task": (
        ["task=preference", "data.conversation_columns={output: x}", *START],
        ["data.conversation_columns", "output", "chosen"],
    ),
    "conversations of a classifier": (["data.roles={bing: assistant}"], ["data.roles", "task=instruction"]),
    "threshold of one": (["task=multilabel", "task.threshold=1"], ["task.threshold"]),
    "instructions for an encoder": (["task=instruction", "model=bert"], ["task: instruction needs model=gpt"]),
    "instructions that are augmented": (["task=instruction", "model=gpt", "augment=drop"], ["augment=none"]),
    "an own template of a new tokenizer": (["task=instruction", "model=gpt", "task.template=own"], ["task.template", "chatml"]),
    "an unknown template": (["task=instruction", "model=gpt", "task.template=chatlm"], ["task.template", "chatml"]),
    "columns of another form": (
        ["task=instruction", "model=gpt", "data.conversation=messages", "data.conversation_columns={output: x}"],
        ["data.conversation_columns", "'output'", "messages, system"],
    ),
    "roles of no conversation": (["data.roles={bing: assistant}", LSTM], ["data.roles", "task=instruction"]),
    "a role that is none": (["task=instruction", "model=gpt", "data.roles={bing: boss}"], ["data.roles.bing", "assistant"]),
    "lora on the lstm": (["tuning=lora", LSTM], ["lora", "lstm"]),
    "two samplers": (["balance=[oversample,square_root]"], ["oversample and square_root", "~balance.square_root"]),
    "two ways to weigh": (["balance=[inverse_frequency,logit_adjustment]"], ["inverse_frequency and logit_adjustment"]),
    "weights of nothing": (["balance=class_weights"], ["balance.class_weights.by_label", "names no label"]),
    "a weight of zero": (
        ["balance=class_weights", "balance.class_weights.by_label={spam: 0}"],
        ["balance.class_weights.by_label.spam", "greater than 0"],
    ),
    "balance without classes": (["balance=focal", "task=regression"], ["balance", "task=regression", "balance=none"]),
    "balance of a language model": (["balance=oversample", "task=causal_lm", "model=gpt"], ["balance", "task=causal_lm"]),
    "a sampler of rows with several labels": (
        ["task=multilabel", "balance=oversample"],
        ["balance.oversample", "several labels"],
    ),
    "the rarest of several labels": (
        ["task=multilabel", "balance=threshold", "balance.threshold.metric=f1_minority"],
        ["balance.threshold.metric", "f1_macro or null"],
    ),
    "thresholds on no rows": (["balance=threshold", "split.validation_fraction=0"], ["threshold", "split.validation_fraction"]),
    "colder than what there is": (["balance=temperature", "balance.temperature.temperature=0.5"], ["at least 1"]),
    "run name that climbs": (["run_name=../x"], ["run_name"]),
    "run name that is absolute": (["run_name=/tmp/x"], ["run_name"]),
    "run name that is long": ([f"run_name={'x' * 300}"], ["run_name", "100"]),
    "run name that is a flag": (["run_name=-rf"], ["run_name"]),
    "run name that is a command": (["run_name='$(id)'"], ["run_name"]),
    "run name of two lines": (["run_name='a\n'"], ["run_name"]),
    "leaving out nothing": (["~optimizer.lrr"], ["optimizer.lrr", "lr"]),
    "several values": (["seed=1,2"], ["-m"]),
    "hydra key": (["hydra.run.dir=/tmp/x"], ["hydra"]),
    "_target_": (["+optimizer._target_=os.system"], ["_target_"]),
    "deep nesting": (["+optimizer.x=" + "{a: " * 200 + "1" + "}" * 200], ["nested too deeply"]),
}

# the text of ./recipes/bad.yaml, and what the message has to say
RECIPES = {
    "unknown key": ("optimizer:\n  lrr: 1\n", ["recipes/bad.yaml:2", "did you mean 'lr'"]),
    "bad value": ("seed: -1\n", ["recipes/bad.yaml:1", "seed", "at least 0"]),
    "duplicate key": ("seed: 1\noutput_dir: x\nseed: 2\n", ["recipes/bad.yaml:3", "duplicate key 'seed'", "line 1"]),
    "tab": ("optimizer:\n\tlr: 1\n", ["recipes/bad.yaml:2", "tab"]),
    "python object": ("seed: !!python/object/apply:os.system ['true']\n", ["recipes/bad.yaml:1", "not allowed"]),
    "alias bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        ["recipes/bad.yaml", "too large"],
    ),
    "deep nesting": ("[" * 5000 + "]" * 5000, ["recipes/bad.yaml"]),
    "deep mapping": ("{a: " * 3000 + "1" + "}" * 3000, ["recipes/bad.yaml"]),
    "no mapping": ("- a\n- b\n", ["recipes/bad.yaml:1"]),
    "no YAML": ("a: [b\n", ["recipes/bad.yaml"]),
    "_target_": ("optimizer:\n  _target_: os.system\n", ["recipes/bad.yaml:2", "_target_"]),
    "hydra": ("hydra: {run: {dir: /tmp}}\n", ["recipes/bad.yaml:1", "hydra"]),
    "unknown group": ("defaults:\n  - override /modell: bert\n", ["recipes/bad.yaml", "modell", "model"]),
    "unknown option": ("defaults:\n  - override /model: bart\n", ["recipes/bad.yaml", "bart", "bert"]),
    "unknown parent": ("defaults: [lstm_clss]\n", ["recipes/bad.yaml", "lstm_clss", "lstm_cls"]),
    "its own parent": ("defaults: [bad]\n", ["inherits from itself"]),
    "label that YAML reads as a truth value": ("task: {label_names: [no, yes]}\n", ["label_names", "quotes"]),
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_override(cli, tmp_path: Path, name: str):
    overrides, words = OVERRIDES[name]
    outcome = cli("train", DATA, *overrides)
    check(outcome, words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipe(cli, tmp_path: Path, name: str):
    text, words = RECIPES[name]
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bad.yaml").write_text(text)
    started = time.process_time()
    outcome = cli("train", DATA, "+recipe=bad")
    check(outcome, words)
    assert time.process_time() - started < 5
    assert [file.name for file in tmp_path.rglob("*")] == ["recipes", "bad.yaml"]


def test_recipe_that_is_not_utf8(cli, tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bad.yaml").write_bytes(b"output_dir: caf\xe9\n")
    check(cli("train", DATA, "+recipe=bad"), ["recipes/bad.yaml", "UTF-8", "byte 15", "0xe9"])


def test_missing_data(cli):
    check(cli("train"), ["data.train_file", "is not set"])


def check(outcome, words: list[str]) -> None:
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err, f"{word!r} is not in:\n{outcome.err}"


def test_all_mistakes_are_told_at_once(cli, tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bad.yaml").write_text("data:\n  train_file: x.csv\ntraining:\n  epoch: 3\n")
    outcome = cli(
        "train",
        "+recipe=bad",
        "+recpie=bert_cls",
        "optimizer.lr=-1",
        "model=lstn",
        "++seed=two",
        "~data.nothing",
        "training.best_metric=bleu",
    )
    check(outcome, ["7 config errors", "training.epoch", "bad.yaml:4", "recpie", "lr", "lstn", "seed", "nothing", "bleu"])


def test_the_place_of_a_mistake_is_told(cli):
    assert "override optimizer.lr=-1" in cli("train", DATA, "optimizer.lr=-1").err


def test_swapping_a_group_under_a_recipe_names_the_line_and_the_remedy(cli, tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "defaults:\n  - override /model: bert\ndata: {train_file: x.csv}\nmodel:\n  pretrained: a/b\n"
    )
    check(cli("train", "+recipe=mine", "model=lstm"), ["model.pretrained", "recipes/mine.yaml:5", "~model.pretrained"])
    assert cli("show", "+recipe=mine", "model=lstm", "~model.pretrained").code == 0
