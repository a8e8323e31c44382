"""Benchmarks look into the trainer by private names, which must not go away unnoticed."""

import importlib
import os
import re
import sys
from unittest import mock

import pytest

from llmtune.training.trainer import Trainer
from tests.conftest import ROOT
from tests.pipeline.conftest import sentences, write_rows

BENCH = ROOT / "scripts" / "bench"


@pytest.mark.parametrize("file", sorted(BENCH.rglob("*.py")), ids=lambda file: file.name)
def test_names_of_the_trainer(file):
    for name in re.findall(r'\bTrainer(?:\.|, ")(_[a-z]\w*)', file.read_text(encoding="utf-8")):
        is_of_transformers = name == "_save_checkpoint"
        assert is_of_transformers or hasattr(Trainer, name), name


def test_the_parts_of_a_save():
    sys.path.insert(0, str(BENCH))
    try:
        save_price = importlib.import_module("save_price")
    finally:
        sys.path.remove(str(BENCH))
    clock = Recorder()
    save_price.instrument(clock)
    assert len(clock.names) >= 9 and all(hasattr(owner, name) for owner, name in clock.names)


class Recorder:
    """In the place of the clock: notes what would be wrapped."""

    def __init__(self):
        self.names = []

    def wrap(self, owner, name, *rest):
        self.names.append((owner, name))

    wrap_step = wrap_save = wrap


def test_the_clock_of_the_comparisons(tmp_path):
    write_rows(tmp_path / "reviews.csv", sentences(40))
    sys.path.insert(0, str(BENCH / "peers"))
    try:
        common = importlib.import_module("common")
    finally:
        sys.path.remove(str(BENCH / "peers"))
    words = [f"data.train_file={tmp_path / 'reviews.csv'}", "model=lstm", "training.epochs=1", "training.batch_size=8"]
    with mock.patch.dict(os.environ), common.work_folder(1) as folder:
        found = common.call(common.llmtune, words=words, folder=folder)
    assert len(found["steps"]) >= 2 and all(step["tokens"] and step["loss"] > 0 for step in found["steps"])
    assert 0 <= found["metrics"]["accuracy"] <= 1
