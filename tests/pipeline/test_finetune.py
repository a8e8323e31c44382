"""Training on from a run or from a plain transformers directory: which head, which weights, what is exported."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

from tests.pipeline.conftest import BAD, FILLERS, GOOD, SMALL, Folder, read, read_lines, sentences, write_rows

LR = ["optimizer.lr=.01", "schedule=constant", "training.log_every=1", "tokenizer.min_frequency=1"]
FIRST = "runs/first/latest"


def renamed(rows: list[dict[str, str]], names: dict[str, str]) -> list[dict[str, str]]:
    return [{**row, "label": names[row["label"]]} for row in rows]


@pytest.fixture(scope="module", params=["lstm", "bert"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a run `first`, and files to go on with."""
    folder = Folder(tmp_path_factory.mktemp("first"))
    write_rows(folder / "reviews.csv", sentences(300))
    write_rows(folder / "same.csv", sentences(100, seed=4))
    write_rows(folder / "other.csv", renamed(sentences(100, seed=4), {"positive": "up", "negative": "down"}))
    write_rows(
        folder / "one_of_three.csv", [*sentences(60, seed=4), *({"text": "so so", "label": "mixed", "length": "2"},) * 20]
    )
    args = [*SMALL[request.param], *LR, "data.train_file=reviews.csv", "training.epochs=5", "training.best_metric=loss"]
    folder.ok("train", *args, "run_name=first")
    return folder


@pytest.mark.parametrize(
    ("file", "names", "head_is_kept"),
    [
        ("same.csv", ["negative", "positive"], True),
        ("other.csv", ["down", "up"], False),
        ("one_of_three.csv", ["mixed", "negative", "positive"], False),
    ],
)
def test_the_head_is_kept_where_the_labels_are(trained: Folder, file: str, names: list[str], head_is_kept: bool):
    told = trained.ok("finetune", FIRST, *LR, f"data.train_file={file}", "training.epochs=1", "run_name=on").err
    run = trained.latest("on")
    assert list(read(run / "checkpoints" / "best" / "config.json")["id2label"].values()) == names
    assert ("new weights" in told) == (not head_is_kept)
    start = read_lines(run / "metrics.jsonl")[0]["loss"]
    assert start < 0.4 if head_is_kept else start > 0.6


def test_a_text_file_of_fewer_labels_keeps_the_others(trained: Folder):
    write_rows(trained / "good.csv", [r for r in sentences(60, seed=2) if r["label"] == "positive"] + sentences(2))
    trained.ok("finetune", FIRST, *LR, "data.train_file=good.csv", "training.epochs=1", "split=random", "run_name=fewer")
    best = trained.latest("fewer") / "checkpoints" / "best"
    assert list(read(best / "config.json")["id2label"].values()) == ["negative", "positive"]


def test_only_the_head_learns(trained: Folder):
    told = trained.ok(
        "finetune", FIRST, *LR, "data.train_file=other.csv", "tuning=head", "training.epochs=3", "run_name=head"
    ).err
    assert "tuning=head" in told and "% learn" in told
    run = trained.latest("head")
    names = {p.name for p in (run / "checkpoints" / "best").iterdir()}
    assert "learned.safetensors" in names and "model.safetensors" not in names
    learned = load_file(run / "checkpoints" / "best" / "learned.safetensors")
    assert learned and all(name.startswith("classifier") for name in learned)
    trained.ok("evaluate", str(run))
    trained.ok("export", str(run), "export=huggingface")
    before = load_file(trained.latest("first") / "checkpoints" / "best" / "model.safetensors")
    after = load_file(run / "export" / "huggingface" / "model.safetensors")
    assert before.keys() == after.keys()
    assert {n for n in before if not torch.equal(before[n], after[n])} == set(learned)


def test_low_rank_updates_are_merged_into_the_export(trained: Folder):
    args = ["finetune", FIRST, *LR, "data.train_file=same.csv", "tuning=lora", "training.epochs=2", "run_name=lora"]
    best = trained.latest("first") / "checkpoints" / "best"
    if read(best / "config.json")["model_type"] == "llmtune_lstm":
        refused = trained(*args)
        assert refused.code == 2 and "no linear layers" in refused.err and not (trained / "runs" / "lora").exists()
        return
    trained.ok(*args)
    run = trained.latest("lora")
    learned = load_file(run / "checkpoints" / "best" / "learned.safetensors")
    assert any("lora_A" in name for name in learned)
    trained.ok("evaluate", str(run))
    trained.ok("export", str(run))
    exported = load_file(run / "export" / "huggingface" / "model.safetensors")
    before, query = load_file(best / "model.safetensors"), "bert.encoder.layer.0.attention.self.query.weight"
    assert exported.keys() == before.keys() and not torch.equal(exported[query], before[query])
    BertForSequenceClassification.from_pretrained(run / "export" / "huggingface")
    lines = "a good film\na dull story\n"
    said = trained.ok("predict", str(run), stdin=lines).out
    assert trained.ok("predict", str(run / "export" / "huggingface"), stdin=lines).out == said


@pytest.mark.parametrize("verb", ["evaluate", "resume"])
def test_updates_do_not_go_on_top_of_other_weights(trained: Folder, verb: str):
    """The base has changed since: what was learned on top of it must not be put on the new weights."""
    trained.ok("export", FIRST, "export=huggingface", "output=base")
    args = [
        "finetune",
        "base/huggingface",
        *LR,
        "data.train_file=other.csv",
        "tuning=head",
        "training.epochs=1",
        f"run_name={verb}",
    ]
    trained.ok(*args)
    run = trained.latest(verb)
    weights = trained / "base" / "huggingface" / "model.safetensors"
    (weights.parent / "MANIFEST.json").unlink(missing_ok=True)
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights, metadata={"format": "pt"})
    if verb == "evaluate":
        refused = trained("evaluate", str(run))
        assert refused.code == 4 and "have changed" in refused.err
    else:
        (run / "result.json").unlink()
        refused = trained(*args)
        assert refused.code == 4 and "frozen" in refused.err


@pytest.fixture
def plain_bert(tmp_path: Path) -> Path:
    """A tiny BERT without a head, and its tokenizer, as transformers saves them."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *sorted({*GOOD, *BAD, *FILLERS})])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(tmp_path / "plain")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **sizes)).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize("way", ["finetune", "pretrained"])
def test_a_plain_directory_gets_a_head(plain_bert: Path, reviews: Folder, way: str):
    start = ["finetune", "plain"] if way == "finetune" else ["train", "model=bert", "model.pretrained=plain"]
    lr = [*LR, "optimizer.lr=.003"]
    told = reviews.ok(
        *start, *lr, "data.train_file=reviews.csv", "training.epochs=8", "training.batch_size=16", "run_name=headed"
    )
    assert "new weights" in told.err and "classifier" in told.err
    run = reviews.latest("headed")
    reviews.ok("evaluate", str(run))
    assert read(run / "evaluation" / "test" / "metrics.json")["accuracy"] >= 0.8
    reviews.ok("export", str(run))
    assert (run / "export" / "huggingface" / "tokenizer.json").read_bytes() == (plain_bert / "tokenizer.json").read_bytes()


def test_a_masked_language_model_becomes_a_classifier(reviews: Folder):
    lm = ["task=masked_lm", "data.label_column=null", "data.train_file=reviews.csv", "training.epochs=1"]
    reviews.ok("train", *SMALL["bert"], *LR, *lm, "run_name=lm")
    reviews.ok("finetune", "runs/lm/latest", *LR, "data.train_file=reviews.csv", "training.epochs=1", "run_name=cls")
    body = [load_file(reviews.latest(n) / "checkpoints" / "best" / "model.safetensors").keys() for n in ("lm", "cls")]
    assert any(name.startswith("cls.") for name in body[0]) and "classifier.weight" in body[1]
    assert reviews.ok("predict", "runs/cls/latest", stdin="a good film\n").out.count('"label"') == 1


def test_the_command_line_wins_over_a_recipes_section(trained: Folder):
    (trained / "recipes").mkdir(exist_ok=True)
    section = "finetune: {data: {train_file: same.csv}, tuning: {type: head}, optimizer: {lr: 0.5}, training: {epochs: 1}}"
    (trained / "recipes" / "two.yaml").write_text(f"# two stages\ndata: {{train_file: reviews.csv}}\n{section}\n")
    shown = yaml.safe_load(trained.ok("show", "finetune", FIRST, "+recipe=two").out)
    assert (shown["tuning"], shown["optimizer"]["lr"], shown["data"]["train_file"]) == ({"type": "head"}, 0.5, "same.csv")
    shown = yaml.safe_load(
        trained.ok("show", "finetune", FIRST, "+recipe=two", "tuning=full", "optimizer=sgd", "training.epochs=2").out
    )
    assert (shown["tuning"], shown["optimizer"]["type"], shown["optimizer"]["lr"]) == ({"type": "full"}, "sgd", 0.1)
    assert shown["training"]["epochs"] == 2 and shown["data"]["train_file"] == "same.csv"
