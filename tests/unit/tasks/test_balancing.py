"""What `balance` does to a task, and what it tells."""

import numpy as np
import pyarrow as pa
import pytest

from llmtune.config.sections.balance import ClassWeights, InverseFrequency, OverSampling, Threshold
from llmtune.data.prepared import Split, write_split
from llmtune.errors import ConfigError
from llmtune.tasks import balancing, criterion
from llmtune.tasks.classification import ClassificationTask
from llmtune.tasks.inputs import NumericInputs
from llmtune.tasks.multilabel import MultilabelTask

OVER = OverSampling(type="oversample", ratio=1.0)
INVERSE = InverseFrequency(type="inverse_frequency")


@pytest.fixture
def apply(tmp_path):
    """`apply(labels, balance)`: the task and what draws its rows."""

    def make(labels, balance, names=("ham", "spam")):
        write_split(tmp_path, "train", [{"features": [[0.0]] * len(labels), "label": list(labels)}])
        task = ClassificationTask(NumericInputs(names=["x"], mean=[0.0], std=[1.0]), label_names=names)
        return task, balancing.apply(balance, task, Split(tmp_path / "train.arrow"), seed=0)

    return make


def test_without_balance_imbalance_is_told(apply, capsys):
    task, sampler = apply([0] * 31 + [1] * 10, {})
    assert sampler is None and task.criterion is criterion.cross_entropy
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "ham (31 rows) to spam (10 rows), 3.1 to 1" in told and "balance=" in told


@pytest.mark.parametrize(("labels", "names"), [([0] * 30 + [1] * 10, ("a", "b")), ([0] * 5 + [2] * 4, ("a", "none", "c"))])
def test_what_is_not_imbalanced_is_not_told(apply, capsys, labels, names):
    apply(labels, {}, names)
    assert capsys.readouterr().err == ""


def test_a_sampler_tells_its_epoch(apply, capsys):
    task, sampler = apply([0] * 30 + [1] * 7, {"oversample": OVER})
    assert sampler.num_rows == 60 and task.criterion is criterion.cross_entropy
    assert "oversample: an epoch has 60 rows of 37: spam 7 -> 30" in capsys.readouterr().err


def test_a_sampler_and_weights_do_not_correct_twice(apply):
    task, _ = apply([0] * 30 + [1] * 7, {"oversample": OVER, "weights": INVERSE})
    assert np.allclose(task.criterion.weights_C, [1, 1])


def test_thresholds_change_nothing_in_training(apply, capsys):
    task, sampler = apply([0] * 30 + [1] * 7, {"threshold": Threshold(type="threshold", metric=None)})
    assert sampler is None and task.criterion is criterion.cross_entropy and capsys.readouterr().err == ""


def test_weights_by_label(apply):
    weights = ClassWeights(type="class_weights", by_label={" 1.0": 3.0})
    task, _ = apply([0] * 30 + [1] * 10, {"mine": weights}, ("0", "1"))
    assert np.allclose(task.criterion.weights_C, np.array([1, 3]) * 40 / 60)
    balancing.require_labels({"mine": weights}, ["0", "1"])
    with pytest.raises(ConfigError, match=r"balance.mine.by_label: there is no label '1'; the labels are: ham, spam"):
        balancing.require_labels({"mine": weights}, ["ham", "spam"])


def test_several_labels_are_counted(tmp_path, capsys):
    rows = {"features": [[0.0]] * 4, "labels": pa.array([[0], [0, 1], [], [0]], pa.list_(pa.int32()))}
    write_split(tmp_path, "train", [rows])
    task = MultilabelTask(NumericInputs(names=["x"], mean=[0.0], std=[1.0]), label_names=["a", "b"], threshold=0.5)
    assert balancing.apply({"inverse": INVERSE}, task, Split(tmp_path / "train.arrow"), seed=0) is None
    assert np.allclose(task.criterion.weights_2C, [[4 / 2, 4 / 6], [4 / 6, 4 / 2]])
    balancing.apply({}, task, Split(tmp_path / "train.arrow"), seed=0)
    assert task.criterion is criterion.binary_cross_entropy and capsys.readouterr().err == ""
