from tests.pipeline.conftest import folder, one_thread  # noqa: F401
