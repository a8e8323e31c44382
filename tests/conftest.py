"""Options and fixtures of all tests. Nothing here needs a network, a GPU or a file outside the clone."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.faults.nursery import Nursery

ROOT = Path(__file__).resolve().parents[1]

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Under nohup, or in the background of a script, the processes that tests start would ignore these signals as well.
for number, handler in ((signal.SIGHUP, lambda *_: None), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)
os.environ["COLUMNS"] = "120"
# The machine may be busy with something else.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

# Files of more than 15 s of processor time, the longest first: each is one worker's, and what comes last should be short.
LONGEST_FIRST = (
    "faults/test_every_step.py",
    "faults/test_kills.py",
    "faults/test_ranks.py",
    "pipeline/test_resume.py",
    "pipeline/test_tunings.py",
    "pipeline/test_preference.py",
    "pipeline/test_optimizers.py",
    "pipeline/test_instruction.py",
    "unit/test_cli.py",
    "pipeline/test_gguf.py",
    "pipeline/test_writing.py",
    "faults/test_signals.py",
    "configs/test_canaries.py",
    "pipeline/test_flows.py",
    "faults/test_every_write.py",
    "pipeline/test_sweeps.py",
    "pipeline/test_training_options.py",
    "unit/data/test_words.py",
    "unit/evaluation/test_evaluate.py",
    "faults/test_io_errors.py",
    "faults/test_workers.py",
    "configs/test_every_option.py",
    "faults/test_fuzz.py",
    "unit/models/test_heads.py",
    "pipeline/test_equal_runs.py",
    "pipeline/test_folds.py",
    "configs/test_overrides.py",
    "pipeline/test_finetune.py",
)


class Outcome(NamedTuple):
    """What one command line did."""

    code: int
    out: str
    err: str


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {ROOT / "tests" / file: place for place, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="needs --slow"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """What the files have imported is no garbage, as in a process of llmtune: a collection would take a third of a second."""
    gc.collect()
    gc.freeze()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True)
def subnormal_numbers() -> Iterator[None]:
    """What training sets for its process, numbers below 1e-38 are zero, ends with the test: hypothesis draws such numbers."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Outcome]:
    """Runs `llmtune ARGS` in a process of its own, in an empty folder. `env` adds variables; None removes one."""

    def run(*args: str, env: dict[str, str | None] | None = None, cwd: Path = tmp_path, stdin: str = "") -> Outcome:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        variables = {name: value for name, value in variables.items() if value is not None}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "llmtune", *args],
            cwd=cwd,
            env=variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Nursery"]:
    """Runs `llmtune ARGS`, and more, in processes that need not import torch."""
    from tests.faults.nursery import Nursery

    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs `llmtune ARGS` within this process, in an empty folder: fast, for what needs no torch."""
    from llmtune.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = main(list(args))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
