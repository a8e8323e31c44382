"""The same scores, in example order, whatever the batch size; and memory that does not grow with the split."""

import tracemalloc

import numpy as np
import pytest
import torch

from llmtune.config.schema import METRICS
from llmtune.data.prepared import Split, write_split
from llmtune.evaluation.evaluate import evaluate
from tests.unit.evaluation.conftest import CPU, MAKERS, columns

BATCH_SIZES = [4, 7, 16, 1000]


def answers(case, tmp_path, *, batch_size: int = 5, seed: int = 3) -> dict[str, np.ndarray]:
    return evaluate(*case, batch_size=batch_size, compute=CPU, seed=seed, keep_in=tmp_path).answers


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_batch_size_changes_no_answer(case, tmp_path, batch_size):
    alone, together = (answers(case, tmp_path, batch_size=n) for n in (1, batch_size))
    assert together.keys() == alone.keys()
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert (together["num_targets"] == alone["num_targets"]).all()
    for name, values in alone.items():
        assert together[name] == pytest.approx(values, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_batch_size_does_not_change_the_metrics(case, compute, batch_size):
    names = METRICS[case[1].type]
    alone, together = (evaluate(*case, batch_size=n, compute=compute, seed=3).metrics for n in (1, batch_size))
    assert {n: together[n] for n in names} == pytest.approx({n: alone[n] for n in names}, rel=1e-6)


def test_answers_stand_in_the_order_of_the_examples(case, tmp_path):
    model, task, split = case
    found = answers(case, tmp_path)
    if task.type == "causal_lm":
        assert found["num_targets"].tolist() == [n - 1 for n in split.lengths]
    if task.type == "classification":
        assert found["reference"].tolist() == [row["label"] for row in split.rows(range(split.num_rows))]


def test_answers_are_kept_only_if_asked_for_and_leave_no_file(case, compute, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert evaluate(*case, batch_size=4, compute=compute, seed=3).answers == {}
    assert answers(case, tmp_path) and sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("case", ["masked_lm"], indirect=True)
def test_the_seed_draws_the_masks(case, tmp_path):
    first, same, other = (answers(case, tmp_path, seed=s)["loss"] for s in (3, 3, 4))
    assert (first == same).all() and (first != other).any()


@pytest.mark.parametrize("task_type", ["classification", "masked_lm", "causal_lm"])
def test_memory_does_not_grow_with_the_split(task_type, tmp_path):
    """Beyond a few numbers a row that say in which batch it is."""
    torch.manual_seed(0)
    model, task = MAKERS[task_type]()
    peaks = []
    for times in (1, 100, 400):
        name = f"of-{times}"
        write_split(tmp_path, name, [{column: values * times for column, values in columns(task_type).items()}])
        split = Split(tmp_path / f"{name}.arrow")
        tracemalloc.start()
        evaluate(model, task, split, batch_size=16, compute=CPU, seed=0, keep_in=tmp_path)
        peaks.append((split.num_rows, tracemalloc.get_traced_memory()[1]))
        tracemalloc.stop()
    (fewer, low), (more, high) = peaks[1:]
    assert (high - low) / (more - fewer) < 40, peaks


@pytest.mark.parametrize("case", ["classification"], indirect=True)
def test_a_full_disk_is_an_error_not_the_end_of_the_process(case, compute, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        answers(case, tmp_path)
