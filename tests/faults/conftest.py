"""Fixtures of the faults: a run that nobody disturbed, and folders to disturb it in."""

import shutil

import pytest

from tests.faults.processes import TRAIN
from tests.pipeline.conftest import Folder, folder, one_thread, sentences, write_rows  # noqa: F401
from tests.unit.conftest import section  # noqa: F401


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder with a run of `TRAIN` on the module's NUM_ROWS rows that this process did, undisturbed."""
    place = Folder(tmp_path_factory.mktemp("whole"))
    write_rows(place / "reviews.csv", sentences(request.module.NUM_ROWS))
    place.ok(*TRAIN)
    return place


@pytest.fixture
def mine(whole: Folder, folder: Folder) -> Folder:  # noqa: F811
    """A folder with the same rows, and no run."""
    shutil.copy(whole / "reviews.csv", folder / "reviews.csv")
    return folder
