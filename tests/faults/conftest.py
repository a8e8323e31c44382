from tests.pipeline.conftest import folder, one_thread  # noqa: F401
from tests.unit.conftest import section  # noqa: F401
