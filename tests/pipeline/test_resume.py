"""A run that was cut off goes on and ends as if nothing had happened."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from llmtune.training import manifest
from tests import tiny
from tests.faults.nursery import Nursery
from tests.pipeline.conftest import SMALL, Folder, read, read_lines, sentences, sha256, step_losses, write_rows

COMMON = ["data.train_file=reviews.csv", "tokenizer.min_frequency=1", "training.log_every=1", "training.batch_size=8"]
AUGMENT = "augment=[synonyms,insert,drop,swap,characters,keyboard,casing,punctuation]"
RUNS = {
    "lstm": ["model=lstm", "model.hidden_size=32", "model.max_ngram=3", "model.ngram_buckets=500", AUGMENT]
    + ["training.save_every=7", "training.epochs=4"],
    "bert": [*SMALL["bert"], "task=masked_lm", "data.label_column=null", "training.save_every=7", "training.epochs=4"],
    "gpt": [*SMALL["gpt"], "task=causal_lm", "data.label_column=null", "tokenizer.max_length=12", "training.save_every=7"]
    + ["training.epochs=6", "training.gradient_accumulation_steps=2"],
    "live_rows": [*SMALL["bert"], "training.save_every=7", "training.epochs=4"],  # pieces of words that no row holds
    "lora": [
        "model=gpt",
        "model.pretrained=llama",
        "tuning=lora",
        "tuning.dropout=0.2",
        "task=causal_lm",
        "data.label_column=null",
    ]
    + ["tokenizer.max_length=12", "hardware.precision=bf16", "training.save_every=7", "training.epochs=6"],
}
ON_CPU = ["hardware=cpu", "hardware.num_threads=1"]
TIMED = ("train_seconds", "tokens_per_second", "padding_share", "wait_share", "peak_memory")
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder in which every run of the table has run to its end."""
    folder = Folder(tmp_path_factory.mktemp("whole"))
    write_rows(folder / "reviews.csv", sentences(300))
    save_llama(folder / "llama")
    for name in RUNS:
        folder.ok(*command(name))
    return folder


def command(name: str) -> list[str]:
    """Of a run of the table; float32 unless it says otherwise."""
    return ["train", *ON_CPU, "hardware.precision=fp32", *COMMON, f"run_name={name}", *RUNS[name]]


def save_llama(directory: Path) -> None:
    """A tiny model with a tokenizer of words."""
    words = {
        word: i for i, word in enumerate(["[PAD]", "[UNK]", *sorted({w for r in sentences(300) for w in r["text"].split()})])
    }
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(directory)
    torch.manual_seed(0)
    tiny.save(tiny.model("llama", "causal_lm", vocab_size=len(words)), directory)


def wait_for_step(folder: Folder, name: str, step: int, nursery: Nursery) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and nursery.is_at_work:
        logs = list((folder / "runs" / name).glob("20*/metrics.jsonl"))
        if logs and logs[0].read_text().count('"event": "step"') >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"step {step} was never seen: {nursery.end().told}")


def assert_equal_ends(one: Path, other: Path) -> None:
    """Equal weights, optimizer and log: nothing but times may differ."""
    assert step_losses(one) == step_losses(other)
    results = [{k: v for k, v in read(run / "result.json").items() if k not in TIMED} for run in (one, other)]
    assert results[0] == results[1]
    evaluations = [[e for e in read_lines(run / "metrics.jsonl") if e["event"] == "evaluation"] for run in (one, other)]
    assert evaluations[0] == evaluations[1]
    for link in ("best", "latest"):
        ours, theirs = ((run / "checkpoints" / link).resolve() for run in (one, other))
        assert ours.name == theirs.name
        files = [file.name for file in sorted(theirs.glob("*.safetensors"))]
        assert files in (["model.safetensors", "optimizer.safetensors"], ["learned.safetensors", "optimizer.safetensors"])
        for file in (*files, "trainer.json"):
            assert sha256(ours / file) == sha256(theirs / file), f"{link}/{file}"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("lstm", signal.SIGKILL),
        ("lstm", signal.SIGTERM),
        ("bert", signal.SIGKILL),
        ("gpt", signal.SIGINT),
        ("live_rows", signal.SIGKILL),
        ("lora", signal.SIGKILL),
        *(pytest.param(name, sent, marks=pytest.mark.slow) for name in RUNS for sent in CODES),
    ],
)
def test_the_same_command_goes_on(uninterrupted: Folder, folder: Folder, nursery: Nursery, name: str, sent: signal.Signals):
    shutil.copy(uninterrupted / "reviews.csv", folder / "reviews.csv")
    shutil.copytree(uninterrupted / "llama", folder / "llama")
    args = command(name)
    pid = nursery.start("process", *args, folder=folder.path)
    wait_for_step(folder, name, 40, nursery)
    os.kill(pid, sent)
    code, said = nursery.end()
    assert code == CODES[sent], said
    run = folder.latest(name)
    assert not (run / "result.json").exists() and "Traceback" not in said
    if sent != signal.SIGKILL:
        last = (run / "checkpoints" / "latest").readlink().name
        assert f"stopped after step {int(last[5:])} of" in said
        assert step_losses(run)[-1][0] == int(last[5:]), "the last step is missing in the log"
    told = folder.ok(*args)
    assert "resuming" in told.err and folder.latest(name) == run
    assert_equal_ends(run, uninterrupted.latest(name))


def test_rows_that_are_never_read_take_no_part(uninterrupted: Folder):
    latest = uninterrupted.latest("live_rows") / "checkpoints" / "latest"
    state, weights = (load_file(latest / name) for name in ("optimizer.safetensors", "model.safetensors"))
    table = "bert.embeddings.word_embeddings.weight"
    assert len(state[f"{table}/exp_avg"]) == len(state[f"{table}/rows"]) < len(weights[table])


HALTED = [*SMALL["lstm"], *COMMON, "training.epochs=3", "training.save_every=5", "training.keep_checkpoints=9", "run_name=mine"]


@pytest.fixture(scope="module")
def halted_once(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with an unfinished run: it was killed after the checkpoint of step 15 of 39."""
    folder = Folder(tmp_path_factory.mktemp("halted"))
    write_rows(folder / "reviews.csv", sentences(125))
    folder.ok("train", *HALTED)
    run = folder.latest("mine")
    (run / "result.json").unlink()
    for step in (p for p in (run / "checkpoints").glob("step-*") if int(p.name[5:]) > 15):
        shutil.rmtree(step)
    for link, target in (("latest", "step-000015"), ("best", "step-000013")):
        (run / "checkpoints" / link).unlink()
        (run / "checkpoints" / link).symlink_to(target)
    return folder


@pytest.fixture
def halted(halted_once: Folder, tmp_path: Path) -> tuple[Folder, list[str]]:
    """A folder with an unfinished run, and its command."""
    return halted_once.copy(tmp_path), HALTED


@pytest.fixture
def one_core():
    """The test may change the number of threads."""
    yield
    torch.set_num_threads(1)


def test_auto_goes_on(halted):
    folder, args = halted
    run = folder.latest("mine")
    assert "after step 15" in folder.ok("train", *args).err
    assert folder.latest("mine") == run and (run / "result.json").exists()


def test_must_goes_on_and_fails_if_there_is_nothing(halted):
    folder, args = halted
    assert "after step 15" in folder.ok("train", *args, "training.resume=must").err
    before = sorted(folder.path.rglob("*"))
    refused = folder("train", *args, "training.resume=must")
    assert refused.code == 4 and "no unfinished run" in refused.err
    assert sorted(folder.path.rglob("*")) == before


def test_never_begins_anew(halted):
    folder, args = halted
    old = folder.latest("mine")
    told = folder.ok("train", *args, "training.resume=never")
    assert "resuming" not in told.err and folder.latest("mine") != old and not (old / "result.json").exists()


@pytest.mark.parametrize("relative", [True, False])
def test_a_path_goes_on(halted, relative: bool):
    folder, args = halted
    run = folder.latest("mine")
    folder.ok("train", *args, "training.resume=never")
    named = run.relative_to(folder.path) if relative else run
    assert "after step 15" in folder.ok("train", *args, f"training.resume={named}").err
    assert (run / "result.json").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["training.resume=nowhere"], ["nowhere", "no run directory"]),
        (["training.resume=runs/mine/latest", "optimizer.lr=.5"], ["optimizer.lr: 0.001 -> 0.5"]),
        (["training.resume=runs/mine/latest", "seed=3", "training.batch_size=4"], ["seed: 0 -> 3", "batch_size: 8 -> 4"]),
    ],
)
def test_another_config_is_refused_with_the_difference(halted, changes: list[str], words: list[str]):
    folder, args = halted
    before = {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*")}
    refused = folder("train", *args, *changes)
    assert refused.code == 4 and all(word in refused.err for word in words), refused.err
    assert {p: p.stat().st_mtime_ns for p in (folder / "runs").rglob("*")} == before


def test_drift_of_data_is_refused(halted):
    folder, args = halted
    write_rows(folder / "reviews.csv", sentences(130))
    refused = folder("train", *args)
    assert refused.code == 4 and "data: " in refused.err and "training.resume=never" in refused.err
    folder.ok("train", *args, "training.resume=never")


def test_a_damaged_checkpoint_is_passed_over_and_written_again(halted):
    folder, args = halted
    run = folder.latest("mine")
    (run / "result.json").unlink(missing_ok=True)
    expected = sha256(run / "checkpoints" / "step-000015" / "model.safetensors")
    (run / "checkpoints" / "step-000015" / "model.safetensors").write_bytes(b"damaged")
    told = folder.ok("train", *args).err
    assert "passing over step-000015" in told and "after step 13" in told
    assert sha256(run / "checkpoints" / "step-000015" / "model.safetensors") == expected


def test_a_damaged_last_checkpoint_does_not_end_up_as_the_result(reviews: Folder):
    """Killed after the last save, which the disk then lost."""
    args = [*SMALL["lstm"], *COMMON, "training.epochs=2", "training.keep_checkpoints=9", "run_name=mine"]
    reviews.ok("train", *args)
    run = reviews.latest("mine")
    (run / "result.json").unlink()
    (run / "checkpoints" / "latest" / "optimizer.safetensors").write_bytes(b"")
    reviews.ok("train", *args)
    reviews.ok("evaluate", str(run), "checkpoint=latest")


def test_best_follows_from_the_log(reviews: Folder):
    """A kill can come between the line of the last evaluation and the link to its checkpoint."""
    args = [*SMALL["lstm"], *COMMON, "training.epochs=2", "training.keep_checkpoints=9", "run_name=mine"]
    reviews.ok("train", *args)
    run = reviews.latest("mine")
    best = (run / "checkpoints" / "best").readlink()
    (run / "result.json").unlink()
    (run / "checkpoints" / "best").unlink()
    reviews.ok("train", *args)
    assert (run / "checkpoints" / "best").readlink() == best


@pytest.mark.parametrize("validation", ["0.1", "0"])
def test_the_links_follow_the_last_save(reviews: Folder, validation: str):
    """A kill can come between the last checkpoint and the links to it."""
    args = [
        *SMALL["lstm"],
        *COMMON,
        "training.epochs=2",
        "training.keep_checkpoints=9",
        "training.save_every=5",
        "run_name=mine",
    ]
    args.append(f"split.validation_fraction={validation}")
    reviews.ok("train", *args)
    run = reviews.latest("mine")
    links = [run / "checkpoints" / name for name in (("latest",) if validation != "0" else ("latest", "best"))]
    expected = [link.readlink() for link in links]
    (run / "result.json").unlink()
    for link in links:
        link.unlink()
        link.symlink_to("step-000005")
    reviews.ok("train", *args)
    assert [link.readlink() for link in links] == expected


def test_a_run_in_use_is_left_alone(halted):
    from llmtune.training.run_dir import Lock

    folder, args = halted
    with Lock(folder.latest("mine")):
        refused = folder("train", *args)
    assert refused.code == 5 and str(os.getpid()) in refused.err


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ("training.batch_size=4", "batch_size", "batch_size: 8 -> 4"),
        ("training.gradient_accumulation_steps=2", "gradient_accumulation_steps", "gradient_accumulation_steps: 1 -> 2"),
        (None, "threads", "threads: 1 -> 2"),
    ],
)
def test_a_named_drift_is_allowed_and_told(halted, one_core, change: str | None, name: str, words: str):
    folder, args = halted
    run = folder.latest("mine")
    torch.set_num_threads(2 if name == "threads" else 1)  # the config does not say how many there are
    told = folder.ok("train", *args, *filter(None, [change]), f"training.allow_drift=[{name}]").err
    assert "after step 15" in told and words in told and folder.latest("mine") == run
    (event,) = [e for e in read_lines(run / "metrics.jsonl") if e["event"] == "drift"]
    assert event["step"] == 15 and name in event["changes"]
    assert manifest.read((run / "checkpoints" / "latest").resolve())["fingerprint"][name] == event["changes"][name][1]


def test_a_drift_that_is_not_named_is_refused_and_the_key_is_told(halted, one_core):
    folder, args = halted
    torch.set_num_threads(2)
    refused = folder("train", *args, "training.batch_size=4", "training.allow_drift=[batch_size]")
    assert refused.code == 4 and "threads: 1 -> 2" in refused.err and "training.allow_drift=[threads]" in refused.err


def test_changed_data_are_allowed_as_long_as_labels_and_tokenizer_stay(halted):
    folder, args = halted
    content = (folder / "reviews.csv").read_text().splitlines()
    write_rows(folder / "reviews.csv", sentences(130))  # another tokenizer is learned from them
    refused = folder("train", *args, "training.allow_drift=[data]")
    assert refused.code == 4 and "tokenizer" in refused.err
    content[1] = " ".join(reversed(content[1].partition(",")[0].split())) + "," + content[1].partition(",")[2]  # the same words
    (folder / "reviews.csv").write_text("\n".join(content) + "\n")
    told = folder.ok("train", *args, "training.allow_drift=[data]").err
    assert "after step 15" in told and "a source file has changed" in told
