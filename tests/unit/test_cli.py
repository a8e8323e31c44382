"""Verbs, flags, words, exit codes, what is imported when, completion."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llmtune import __version__
from llmtune.cli import VERBS, Options, parse
from llmtune.completion import complete
from llmtune.config.schema import VERB_CONFIGS
from llmtune.errors import DataError, ResourceError, UsageError

ROOT = Path(__file__).resolve().parents[2]
DATA = "data.train_file=x.csv"
HEAVY = ("torch", "transformers", "datasets", "evaluate", "sklearn", "peft", "onnx", "accelerate", "pandas", "pyarrow")


def modules_after(*args: str, cwd: Path) -> tuple[int, set[str]]:
    """Exit code and top-level modules of one command line: counted, for seconds depend on the machine."""
    code = f"""
import sys
before = set(sys.modules)
from llmtune.cli import main
code = main({list(args)!r})
sys.stderr.write("\\n@" + " ".join(set(sys.modules) - before))
sys.exit(code)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, {name.split(".")[0] for name in done.stderr.rpartition("@")[2].split()}


@pytest.mark.parametrize(
    "args", [[], ["--help"], ["-h"], ["--version"], ["trian"], ["train", "x"], ["--complete", "tr"]], ids=" ".join
)
def test_bare_start_needs_the_standard_library_alone(args: list[str], tmp_path: Path):
    _, modules = modules_after(*args, cwd=tmp_path)
    assert modules
    assert modules - set(sys.stdlib_module_names) <= {"llmtune", "__main__"}


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb: str, tmp_path: Path):
    code, modules = modules_after(verb, "--help", cwd=tmp_path)
    assert code == 0 and not modules & {*HEAVY, "hydra", "omegaconf"}


@pytest.mark.parametrize("verb", VERB_CONFIGS)
def test_a_config_mistake_imports_nothing_heavy(verb: str, tmp_path: Path):
    words = ["RUN"] * VERBS[verb].needed
    code, modules = modules_after(verb, *words, "seeed=1", cwd=tmp_path)
    assert code == 2 and "pydantic" in modules and not modules & set(HEAVY)


def test_rows_in_the_cache_are_found_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path))
    (tmp_path / "x.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 20)
    found = [modules_after("preprocess", "task=classification", "model=lstm", DATA, cwd=tmp_path) for _ in range(2)]
    assert [code for code, _ in found] == [0, 0]
    assert "torch" in found[0][1] and found[1][1] & set(HEAVY) == {"pyarrow"}


@pytest.mark.parametrize("verb", ["list", "show", "schema"])
def test_printing_verbs_import_nothing_heavy(verb: str, tmp_path: Path):
    code, modules = modules_after(verb, *([DATA] if verb == "show" else []), cwd=tmp_path)
    assert code == 0 and not modules & set(HEAVY)


def test_overview_names_every_verb(cli):
    outcome = cli()
    assert outcome.code == 0 and outcome.err == ""
    assert all(f"\n  {verb} " in outcome.out for verb in ("run", "train", "evaluate", "completion"))
    assert cli("--help") == outcome


def test_version(cli):
    assert cli("--version").out == f"llmtune {__version__}\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian"], ["trian", "train"]),
        (["--versoin"], ["--versoin"]),
        (["+recipe=bert_cls"], ["llmtune train +recipe=bert_cls"]),
        (["train", "--mulitrun"], ["--mulitrun", "--multirun"]),
        (["train", "--cfg", "job"], ["llmtune show train"]),
        (["train", "bert_cls"], ["bert_cls", "+recipe=bert_cls"]),
        (["train", "augment=[drop,", "swap]"], ["quotes"]),
        (["train", "optimizer.lr", "3"], ["optimizer.lr", "key=value"]),
        (["evaluate"], ["RUN"]),
        (["evaluate", ""], ["RUN"]),
        (["evaluate", "a", "b"], ["unexpected word 'b'"]),
        (["evaluate", "-rf"], ["-rf"]),
        (["predict", "a", "b", "c"], ["unexpected word 'c'"]),
        (["evaluate", "a", "-m"], ["--multirun"]),
        (["train", "--config-dir", "nowhere"], ["nowhere"]),
        (["train", "--config-dir"], ["--config-dir"]),
        (["list", "modle"], ["modle", "model"]),
        (["list", "a=b"], ["a=b"]),
        (["show", "trian"], ["trian", "train"]),
        (["show", "train", "x"], ["x"]),
        (["schema", "trian"], ["trian", "train"]),
        (["completion", "tcsh"], ["tcsh", "fish"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_command_line_mistakes(cli, tmp_path: Path, args: list[str], words: list[str]):
    outcome = cli(*args)
    assert outcome.code == 2 and outcome.out == "" and "Traceback" not in outcome.err
    assert all(word in outcome.err for word in words), outcome.err
    assert list(tmp_path.iterdir()) == []


def test_words_are_taken_off_before_hydra_sees_them():
    assert parse("evaluate", ["runs/bert_cls/2026-11-24", "split=test"])[0] == ["run='runs/bert_cls/2026-11-24'", "split=test"]
    assert parse("predict", ["a", "-", "batch_size=1"])[0] == ["run='a'", "file='-'", "batch_size=1"]
    assert parse("predict", ["batch_size=1", "a"])[0] == ["run='a'", "batch_size=1"]
    assert parse("finetune", ["a", "+recipe=x"])[0] == ["model=run", "model.path='a'", "+recipe=x"]
    assert parse("finetune", ["+recipe=x"])[0] == ["+recipe=x"]
    args, options = parse("train", ["~data.where", "--debug", "-m", "--config-dir=.", "a=1"])
    assert args == ["~data.where", "a=1"]
    assert options == Options(words=(), multirun=True, config_dir=Path("."), debug=True)


@pytest.mark.parametrize("verb", VERBS)
def test_help_page(cli, verb: str):
    outcome = cli(verb, "--help")
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out.startswith(f"llmtune {verb}: ") and "examples" in outcome.out
    if verb in VERB_CONFIGS:
        assert "hardware.device" in outcome.out and "auto | cuda | cpu" in outcome.out


def test_help_lists_every_key_with_its_default(cli):
    text = cli("train", "--help").out
    for words in ("optimizer.lr ", "model.recurrent_dropout", "stratified*", "(needed)", "export.onnx.opset", "1e-08"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_every_verb_has_examples_that_parse():
    from llmtune.help import EXAMPLES

    assert EXAMPLES.keys() == VERBS.keys()
    for verb, examples in EXAMPLES.items():
        for line, _ in examples:
            words = line.partition("llmtune ")[2].split(" > ")[0].rstrip(')"').split()
            assert words[0] == verb
            parse(verb, words[1:])


def test_list(cli):
    assert "stratified" in cli("list").out
    assert "Embedding, LSTM layers" in cli("list", "model").out
    assert "Adam without decay" in cli("list", "optimizer").out
    assert cli("list", "recipes").code == 0


def test_list_shows_the_users_recipes(cli, tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("# llmtune train +recipe=mine\n# 2 min\nseed: 1\n")
    for args in ([], ["recipes"]):
        out = cli("list", *args).out
        assert "llmtune train +recipe=mine" in out and "2 min" in out


def test_show_prints_a_config_that_reads_back(cli):
    outcome = cli("show", DATA, "optimizer.lr=3e-5")
    tree = yaml.safe_load(outcome.out)
    assert outcome.code == 0 and outcome.err == ""
    assert tree["optimizer"]["lr"] == 3e-5 and tree["data"]["train_file"] == "x.csv"
    assert cli("show", "train", DATA, "optimizer.lr=3e-5").out == outcome.out
    assert yaml.safe_load(cli("show", "evaluate", "runs/it's").out)["run"] == "runs/it's"


@pytest.mark.parametrize("verb", VERB_CONFIGS)
def test_schema(cli, verb: str):
    schema = json.loads(cli("schema", verb).out)
    assert schema["additionalProperties"] is False and "hardware" in schema["properties"]


def test_stdout_closed_early(tmp_path: Path):
    for args in (["list"], ["train", "--help"], ["show", DATA], ["schema"], []):
        reader, writer = os.pipe()
        os.close(reader)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "llmtune", *args],
            stdout=writer,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=env,
            text=True,
            timeout=60,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, ""), args


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_closed_from_the_start(closed: str, tmp_path: Path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for args, code in (("list", 0), ("trian", 2)):
        done = subprocess.run(
            ["sh", "-c", f'"{sys.executable}" -m llmtune {args} {closed}'],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk(tmp_path: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "llmtune", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            timeout=60,
        )
    assert done.returncode == 5 and "No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("home", [None, "/nowhere", "/proc"])
def test_home_does_not_matter(command, home: str | None):
    assert command("show", DATA, env={"HOME": home, "TMPDIR": "/proc"}).code == 0


def test_a_bug_of_ours_shows_the_traceback(cli, monkeypatch):
    monkeypatch.setattr("llmtune.config.compose.groups", lambda: {}["x"])
    outcome = cli("list")
    assert outcome.code == 1 and "Traceback" in outcome.err and "bug of llmtune" in outcome.err and "KeyError" in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("No rows."), 3, "No rows."),
        (ResourceError("No disk."), 5, "No disk."),
        (MemoryError(), 5, "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 5, "memory"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 5, "runs/x"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 5, "permissions"),
        (OSError(errno.EROFS, "Read-only file system", "runs"), 5, "output_dir"),
        (OSError(errno.EMFILE, "Too many open files"), 5, "ulimit"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 5, "TMPDIR"),
        (ModuleNotFoundError("No module named 'peft'", name="peft.tuners"), 5, "pip install 'llmtune[lora]'"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module named 'abc2'", name="abc2"), 1, "bug"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "bug"),
        (type("PanicException", (BaseException,), {})("panicked"), 1, "bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(cli, monkeypatch, error: BaseException, code: int, words: str):
    def fail():
        raise error

    monkeypatch.setattr("llmtune.config.compose.groups", fail)
    outcome = cli("list")
    assert outcome.code == code and words in outcome.err
    assert ("Traceback" in outcome.err) == (code == 1)


def test_debug_shows_the_traceback(cli):
    assert "Traceback" in cli("--debug", "train", "seed=x").err
    assert "Traceback" in cli("train", "seed=x", "--debug").err
    assert "Traceback" not in cli("train", "seed=x").err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tr", ["train"]),
        ("--v", ["--version"]),
        ("train --m", ["--multirun"]),
        ("train opti", ["optimizer=", "optimizer."]),
        ("train +opti", ["+optimizer=", "+optimizer."]),
        ("train ~augm", ["~augment", "~augment."]),
        ("train objective=l", ["objective=l1", "objective=l2", "objective=label_smoothing"]),
        ("train optimizer.bet", ["optimizer.beta1=", "optimizer.beta2=", "optimizer.beta2_decay="]),
        ("train augment=[drop,sw", ["augment=[drop,swap"]),
        ("train optimizer=sgd,adamw", ["optimizer=sgd,adamw"]),
        ("train model.pooling=l", ["model.pooling=last"]),
        ("train training.exact=", ["training.exact=true", "training.exact=false"]),
        ("train augment.sw", ["augment.swap."]),
        ("train augment.swap.r", ["augment.swap.rate="]),
        ("train finetune.optimizer.l", ["finetune.optimizer.lr="]),
        ("train data.train_file=", []),
        ("train --config-dir ", []),
        ("evaluate ", []),
        ("evaluate run", []),
        ("evaluate RUN sp", ["split="]),
        ("evaluate RUN split=te", ["split=test"]),
        ("evaluate RUN model=", []),
        ("predict RUN --de", ["--debug"]),
        ("list mo", ["model"]),
        ("show ev", ["evaluate", "evaluation=", "evaluation."]),
        ("show export ", []),
        ("show evaluate RUN check", ["checkpoint="]),
        ("show opti", ["optimizer=", "optimizer."]),
        ("schema pred", ["predict"]),
        ("completion f", ["fish"]),
        ("nonsense x", []),
    ],
)
def test_complete(line: str, expected: list[str], tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complete(line.split(" ")) == expected


def test_complete_finds_recipes(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "zebra.yaml").write_text("seed: 1\n")
    assert complete(["train", "+recipe=ze"]) == ["+recipe=zebra"]
    assert complete(["train", "recipe=zebra,ze"]) == ["recipe=zebra,zebra"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llmtune tra", ["train"]),
        ("llmtune train optimizer=", ["adafactor", "adam", "adamw", "lion", "muon", "schedule_free", "sgd"]),
        ("llmtune train optimizer=sg", ["sgd"]),
        ("llmtune train optimizer.lr", ["optimizer.lr="]),
        ("llmtune train augment=[drop,sw", ["[drop,swap"]),
        ("llmtune evaluate ", []),
        ("llmtune train model.pooling=m", ["mean", "max"]),
    ],
)
def test_bash_completion(line: str, expected: list[str], tmp_path: Path):
    (tmp_path / "llmtune").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llmtune "$@"\n')
    (tmp_path / "llmtune").chmod(0o755)
    script = f"""
        eval "$(llmtune completion bash)"
        COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
        _llmtune 2>/dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_sound(cli, shell: str, tmp_path: Path):
    import shutil

    script = tmp_path / "script"
    script.write_text(cli("completion", shell).out)
    assert "--complete" in script.read_text()
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", str(script)], timeout=60).returncode == 0


def test_usage_error_is_a_command_line_error():
    with pytest.raises(UsageError):
        parse("train", ["--nothing"])
