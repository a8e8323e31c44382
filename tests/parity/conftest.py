"""Sections of a config, as the unit tests have them."""

from tests.unit.conftest import section  # noqa: F401
