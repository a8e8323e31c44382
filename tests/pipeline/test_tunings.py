"""Every way to open weights from the command line: resumed to the bit, exported, and gone on with."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, BitsAndBytesConfig, PreTrainedTokenizerFast

from tests import tiny
from tests.pipeline.conftest import BAD, FILLERS, GOOD, Folder, read, sentences, sha256, write_rows

ARGS = [
    *("data.train_file=reviews.csv", "training.batch_size=8", "training.max_steps=12", "training.epochs=null"),
    *("training.save_every=3", "training.eval_every=6", "training.keep_checkpoints=9", "training.log_every=1"),
    *("optimizer.lr=.02", "tokenizer.max_length=16", "hardware.num_threads=1", "export=none"),
]
BASE = ["model=bert", "model.pretrained=base", "model.dropout=0.1"]
TUNINGS = {
    "layerwise": ["tuning=layerwise"],
    "gradual": ["tuning=gradual", "tuning.open_every=null", "tuning.open_at=[0.3,0.5,0.9]"],
    "pattern": ["tuning=pattern", "tuning.learn=['*.layer.1.*','*bias']", "tuning.freeze=['*LayerNorm*']"],
    "lora": ["tuning=lora", "tuning.dropout=0.1"],
    "dora": ["tuning=dora", "tuning.rank=2"],
    "pissa": ["tuning=pissa", "tuning.rank=2", "tuning.alpha=4.0"],
    "qlora": ["tuning=qlora", "tuning.rank=2"],
    "ia3": ["tuning=ia3"],
    "prefix": ["tuning=prefix", "tuning.num_virtual_tokens=5"],
    "prompt": ["tuning=prompt", "tuning.num_virtual_tokens=5"],
}
MERGED = ["lora", "dora", "pissa", "qlora", "ia3"]
ADAPTERS = [*MERGED, "prefix", "prompt"]
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
LINES = "a good film\na dull story of two friends\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a pretrained body and a finished run of each tuning."""
    folder = Folder(tmp_path_factory.mktemp("tunings"))
    write_rows(folder / "reviews.csv", sentences(80))
    save_bert(folder / "base")
    for name, tuning in TUNINGS.items():
        folder.ok("train", *ARGS, *BASE, *tuning, f"run_name={name}")
    return folder


def save_bert(directory: Path) -> None:
    """A tiny BERT without a head, whose weights are known, and a tokenizer of words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: i for i, word in enumerate([*special, *sorted({*GOOD, *BAD, *FILLERS})])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    tiny.save(tiny.model("bert", "body", vocab_size=len(words)), directory)


def weights_of(run: Path) -> Path:
    best = run / "checkpoints" / "latest"
    return next(best / name for name in ("learned.safetensors", "model.safetensors") if (best / name).is_file())


@pytest.mark.parametrize(("name", "step"), [*((name, 3) for name in TUNINGS if name != "pattern"), ("gradual", 9)])
def test_a_run_that_was_cut_off_ends_with_the_same_bits(trained: Folder, tmp_path: Path, name: str, step: int):
    whole, folder = trained.latest(name), trained.copy(tmp_path / "again")
    run = folder.latest(name)
    (run / "result.json").unlink()
    for later in (run / "checkpoints").glob("step-*"):
        if int(later.name[5:]) > step:
            shutil.rmtree(later)
    (run / "checkpoints" / "best").unlink(missing_ok=True)
    told = folder.ok("train", *ARGS, *BASE, *TUNINGS[name], f"run_name={name}").err
    assert f"after step {step} of 12" in told
    for file in (weights_of(whole).name, "optimizer.safetensors"):
        assert sha256(run / "checkpoints" / "latest" / file) == sha256(whole / "checkpoints" / "latest" / file), file


@pytest.mark.parametrize("name", ADAPTERS)
def test_exports_give_what_the_run_gives(trained: Folder, name: str):
    run = trained.latest(name)
    said = [json.loads(line)["probabilities"] for line in trained.ok("predict", str(run), stdin=LINES).out.splitlines()]
    forms = ["adapter", "huggingface"] if name in MERGED else ["adapter"]
    trained.ok("export", str(run), f"export=[{','.join(forms)}]")
    for form in forms:
        lines = trained.ok("predict", str(run / "export" / form), stdin=LINES).out.splitlines()
        assert all(json.loads(a)["probabilities"] == pytest.approx(b, abs=1e-5) for a, b in zip(lines, said, strict=True))
    beside = read(run / "export" / "adapter" / "adapter_config.json")["modules_to_save"]
    how = {"quantization_config": BitsAndBytesConfig(**FOUR_BIT, llm_int8_skip_modules=beside)} if name == "qlora" else {}
    base = AutoModelForSequenceClassification.from_pretrained(trained / "base", num_labels=2, **how)
    theirs = PeftModel.from_pretrained(base, run / "export" / "adapter").eval()
    if name == "qlora":  # in eval mode, bitsandbytes' own layers fail for a model as small as this on some CPUs
        theirs.train()
        for module in theirs.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    texts = PreTrainedTokenizerFast.from_pretrained(trained / "base")(LINES.splitlines(), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = theirs(**texts).logits.softmax(-1)
    assert torch.allclose(found, torch.tensor([list(row.values()) for row in said]), rtol=0, atol=1e-4)


def test_virtual_tokens_are_in_no_other_export(trained: Folder):
    refused = trained("export", str(trained.latest("prefix")), "export=huggingface")
    assert refused.code == 4 and "use export=adapter" in refused.err
    refused = trained("run", *ARGS, *BASE, *TUNINGS["prompt"], "export=huggingface", "run_name=no")
    assert refused.code == 2 and "use export=adapter" in refused.err and not (trained / "runs" / "no").exists()
    refused = trained("export", str(trained.latest("layerwise")), "export=adapter")
    assert refused.code == 4 and "trained without an adapter" in refused.err


@pytest.mark.parametrize("name", ["lora", "pissa", "qlora", "prefix"])
def test_an_adapter_learns_on(trained: Folder, name: str):
    """Of the second run, the adapter is still one for the first one's base, and starts where the first one ended."""
    first = trained.latest(name)
    quiet = ["optimizer.lr=1e-9", "optimizer.weight_decay=0", f"run_name=on-{name}"]
    told = trained.ok("finetune", str(first), *ARGS, *TUNINGS[name], *quiet).err
    assert "learns on" in told and "new weights" not in told
    again = trained.latest(f"on-{name}")
    before, after = (load_file(run / "checkpoints" / "best" / "learned.safetensors") for run in (first, again))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[key], after[key], rtol=0, atol=1e-6) for key in before)
    said = [trained.ok("predict", str(run), stdin=LINES).out for run in (first, again)]
    rows = [[json.loads(line)["probability"] for line in out.splitlines()] for out in said]
    assert rows[0] == pytest.approx(rows[1], abs=1e-5)
    trained.ok("export", str(again), "export=adapter")
    assert read(again / "export" / "adapter" / "adapter_config.json")["base_model_name_or_path"] == str(trained / "base")


def test_another_tuning_starts_from_the_merged_model(trained: Folder):
    told = trained.ok("finetune", "runs/lora/latest", *ARGS, "tuning=lora", "tuning.rank=3", "run_name=other").err
    assert "learns on" not in told
    refused = trained("export", "runs/other/latest", "export=adapter")
    assert refused.code == 4 and "does not lie anywhere" in refused.err
    refused = trained("finetune", "runs/prefix/latest", *ARGS, "tuning=full", "run_name=never")
    assert refused.code == 4 and "cannot be merged" in refused.err and not (trained / "runs" / "never").exists()


@pytest.fixture
def theirs(trained: Folder, tmp_path: Path) -> Path:
    """An adapter that peft made, with a head, and that names its base."""
    torch.manual_seed(3)
    base = AutoModelForSequenceClassification.from_pretrained(trained / "base", num_labels=2)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


LIKE_THEIRS = ["tuning=lora", "tuning.rank=4", "tuning.alpha=8.0", "tuning.target_modules=[query,value]"]


@pytest.mark.parametrize(("tuning", "said"), [(LIKE_THEIRS, "learns on"), (["tuning=full"], "is merged into its model")])
def test_an_adapter_of_pefts_is_a_start(trained: Folder, theirs: Path, tuning: list[str], said: str):
    quiet = ["optimizer.lr=1e-9", "optimizer.weight_decay=0", "run_name=theirs", "training.resume=never"]
    told = trained.ok("finetune", str(theirs), *ARGS, *tuning, *quiet).err
    assert said in told and "new weights" not in told
    base = AutoModelForSequenceClassification.from_pretrained(trained / "base", num_labels=2)
    model = PeftModel.from_pretrained(base, theirs).eval()
    texts = PreTrainedTokenizerFast.from_pretrained(trained / "base")(LINES.splitlines(), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**texts).logits.softmax(-1).tolist()
    rows = [json.loads(line) for line in trained.ok("predict", "runs/theirs/latest", stdin=LINES).out.splitlines()]
    assert [list(row["probabilities"].values()) for row in rows] == [pytest.approx(row, abs=1e-5) for row in expected]


def change(directory: Path, **values) -> None:
    config = read(directory / "adapter_config.json")
    (directory / "adapter_config.json").write_text(json.dumps({**config, **values}))


def test_adapters_that_are_unfit(trained: Folder, theirs: Path):
    def refused(*words: str, args: tuple[str, ...] = ()) -> None:
        done = trained("finetune", str(theirs), *ARGS, *LIKE_THEIRS, *args, "run_name=unfit")
        assert done.code == 4 and all(word in done.err for word in words), done.err
        assert not (trained / "runs" / "unfit").exists()

    weights = load_file(theirs / "adapter_model.safetensors")
    first = next(iter(sorted(name for name in weights if "lora_A" in name)))
    save_file({name: t for name, t in weights.items() if name != first}, theirs / "adapter_model.safetensors")
    refused("missing from the adapter", first)
    save_file({**weights, first: torch.zeros(4, 99)}, theirs / "adapter_model.safetensors")
    refused(f"{first} is (4, 99) in the adapter", "(4, 16)")
    save_file(weights, theirs / "adapter_model.safetensors")
    change(theirs, peft_type="VERA")
    refused("of the kind 'VERA'", "LORA")
    change(theirs, peft_type="LORA", megatron_config={"x": 1})
    refused("megatron_config", args=("tuning.rank=2",))
    change(theirs, megatron_config=None, base_model_name_or_path="someone/else")
    refused("belongs to someone/else", "model.base=")
    (theirs / "adapter_model.safetensors").rename(theirs / "adapter_model.bin")
    refused("adapter_model.safetensors", args=("model.base=base",))


def test_layers_open_one_after_the_other(trained: Folder):
    """max_steps=12 and [0.3, 0.5, 0.9]: the layers open at steps 3.6, 6 and 10.8, counted from 0."""
    run = trained.latest("gradual")
    saved = {n: load_file(run / "checkpoints" / f"step-{n:06d}" / "optimizer.safetensors") for n in (3, 6, 9, 12)}
    learning = {
        step: sorted({re.search(r"layer\.\d|classifier|pooler|embeddings", name)[0] for name in state if name[-5:] != "/rows"})
        for step, state in saved.items()
    }
    assert learning == {
        3: ["classifier", "pooler"],
        6: ["classifier", "layer.1", "pooler"],
        9: ["classifier", "layer.0", "layer.1", "pooler"],
        12: ["classifier", "embeddings", "layer.0", "layer.1", "pooler"],
    }
    steps = [float(saved[12][f"{name}/step"]) for name in ("classifier.weight", "bert.encoder.layer.1.output.dense.weight")]
    assert steps == [12.0, 8.0]  # the state of a layer begins when it opens


def test_patience_waits_for_the_last_opening(trained: Folder):
    args = ["training.eval_every=1", "training.early_stopping_patience=2", "optimizer.lr=1e-9", "run_name=patient"]
    trained.ok("train", *ARGS, *BASE, "tuning=gradual", "tuning.open_every=null", "tuning.open_at=[0.5]", *args)
    assert read(trained.latest("patient") / "result.json")["steps"] == 8
    trained.ok("train", *ARGS, *BASE, "tuning=full", *args[:-1], "run_name=impatient")
    assert read(trained.latest("impatient") / "result.json")["steps"] == 3


def test_the_table_before_training(trained: Folder):
    plan = ["plan", *(a for a in ARGS if not a.startswith("export")), *BASE, "hardware=cpu", "hardware.precision=fp32"]
    told = trained.ok(*plan, "tuning=layerwise", "tuning.lr_decay=0.5").err
    rows = {line.split("  ")[1]: line.split() for line in told.splitlines() if line.startswith("  ")}
    assert rows["embeddings"][-8:][2] == "2.50e-03" and "1.00e-02" in rows["layer 1"] and "2.00e-02" in rows["head"]
    assert "but 0 for" in told and "100 % learn" in told
    told = trained.ok(*plan, "tuning=lora").err
    assert re.search(r"layers 0-1 +[\d,]+ +- +- +-", told) and re.search(r"adapters +([\d,]+) +\1 +2.00e-02 +0.01\n", told)
    told = trained.ok(*plan, "tuning=full").err
    assert re.search(r"[\d,]+ weights, all learn; lr 0.02, weight decay 0.01, but 0 for [\d,]+", told)


MISTAKES = {
    "a pattern that takes nothing": (
        ["tuning=pattern", "tuning.learn=[layer.1]"],
        "no weight is called 'layer.1'",
        "'*layer.1*'",
    ),
    "a pattern that was misspelt": (["tuning=pattern", "tuning.freeze=[bert.embedings.*]"], "nearest are bert.embeddings."),
    "a prefix that does not fit": (["tuning=prefix", "tuning.num_virtual_tokens=30"], "tokenizer.max_length=2"),
    "a layer that is not there": (["tuning=ia3", "tuning.target_modules=[q_proj]"], "no linear layer 'q_proj'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(trained: Folder, name: str):
    args, *words = MISTAKES[name]
    refused = trained("train", *ARGS, *BASE, *args, "run_name=mistaken")
    assert refused.code == 2 and all(word in refused.err for word in words), refused.err
    assert not (trained / "runs" / "mistaken").exists()
