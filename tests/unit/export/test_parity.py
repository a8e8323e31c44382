"""What the comparison of an export with its checkpoint looks at. B: texts, L: tokens, C: classes, V: vocabulary."""

import re

import numpy as np
import pytest
import torch

from llmtune.errors import ModelError
from llmtune.export import Bundle, parity
from llmtune.tasks.base import Batch
from tests import tiny
from tests.unit.export.conftest import HUGGINGFACE


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """`compare(task, change)`: the check of an export that gives the checkpoint's logits after `change(logits, batch)`."""

    def run(task, change, *, factor=1.0, **described):
        model, inputs = tiny.model("bert", task), tiny.batch(4, 6)
        for parameter in model.parameters():
            parameter.data *= factor

        def exported(given):
            return change(model(**given).logits.numpy().copy(), given)

        monkeypatch.setitem(parity.READERS, "huggingface", lambda directory: parity.Exported(exported))
        batch = Batch(inputs, {}, torch.arange(4), inputs["attention_mask"].sum(-1), 4.0)
        return parity.check(
            HUGGINGFACE, Bundle(model, None, {"task": {"type": task, **described}}, {}), tmp_path, [batch, batch]
        )

    return run


def test_positions_of_padding_do_not_count(compare):
    def spoil(logits_BLV, given):
        is_padding_BL = ~given["attention_mask"].bool().numpy()
        assert is_padding_BL.any()
        logits_BLV[is_padding_BL] = 1e6
        return logits_BLV

    assert compare("masked_lm", spoil) == {"rows": 8, "max_difference": 0.0, "argmax_differences": 0, "tolerance": 1e-4}


def test_the_decision_is_that_with_thresholds(compare):
    """Two classes that the bias brings within a tie may change places; one that is far ahead without it does not count."""

    def swap(logits, given):
        logits[:, 1] += 9e-5
        return logits

    with torch.inference_mode():
        row_C = tiny.model("bert", "classification")(**tiny.batch(4, 6)).logits.numpy()[0].astype(float)
    bias = [-row_C[0] + 2e-4, -row_C[1], -50.0]
    assert compare("classification", swap, label_bias=bias)["argmax_differences"] == 0
    bias = [-row_C[0], -row_C[1] - 8e-5, -50.0]
    assert compare("classification", swap, label_bias=bias)["argmax_differences"] == 0  # a tie within the tolerance


@pytest.mark.parametrize("difference", [5e-5, 5e-4])
def test_the_tolerance(compare, difference):
    def shift(logits, given):
        return logits + np.float32(difference)

    if difference < 1e-4:
        assert compare("classification", shift)["max_difference"] == pytest.approx(difference, rel=0.01)
    else:
        with pytest.raises(ModelError, match=re.escape("by up to 5.00e-04 in the logits, 0 other argmax in 8 rows")):
            compare("classification", shift)


def test_a_tie_may_fall_either_way(compare):
    def nearly_equal(logits_BC, given):
        top_B1 = logits_BC.argmax(-1)[:, None]
        other_B1 = (top_B1 + 1) % logits_BC.shape[-1]
        np.put_along_axis(logits_BC, other_B1, np.take_along_axis(logits_BC, top_B1, -1) + 1e-6, -1)
        return logits_BC

    with pytest.raises(ModelError, match="8 other argmax in 8 rows"):  # the checkpoint told them clearly apart
        compare("classification", nearly_equal)
    of_equals = compare("classification", lambda logits, _: logits + np.float32([0, 0, 5e-5]), factor=0.0)
    assert of_equals["argmax_differences"] == 0


def test_large_numbers_may_differ_in_their_last_digits(compare):
    def relative(logits, given):
        return logits * np.float32(1 + 2e-5)

    assert compare("regression", relative, factor=30.0)["max_difference"] < 1e-4


def test_another_shape(compare):
    with pytest.raises(ModelError, match=re.escape("the export gives (4, 2), the checkpoint (4, 3)")):
        compare("classification", lambda logits, _: logits[:, :2])
