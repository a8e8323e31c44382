"""What goes wrong while a library loads a model, and whose fault it is."""

import errno

import pytest

from llmtune.errors import ModelError, ResourceError
from llmtune.failures import as_llmtune_error, loaded


def load(error: Exception) -> None:
    def fail() -> None:
        raise error

    loaded(fail, "the model cannot be loaded", where="model", remedy="save it again")


@pytest.mark.parametrize("error", [ValueError("odd size"), KeyError("wavy"), OSError(errno.ENOENT, "no such file")])
def test_the_files_are_at_fault(error):
    with pytest.raises(ModelError, match="the model cannot be loaded: ") as caught:
        load(error)
    assert (caught.value.where, caught.value.remedy) == ("model", "save it again")


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_the_system_is_at_fault(number):
    with pytest.raises(OSError) as caught:
        load(OSError(number, "refused", "model.safetensors"))
    assert isinstance(as_llmtune_error(caught.value), ResourceError)


@pytest.mark.parametrize("error", [MemoryError(), ModelError("told already")])
def test_what_says_enough_by_itself_stays(error):
    with pytest.raises(type(error)) as caught:
        load(error)
    assert caught.value is error
