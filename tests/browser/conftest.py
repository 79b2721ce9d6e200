"""Fixtures of all tests that need sare_tf, which the browser's tests lack."""

import pytest


@pytest.fixture(autouse=True, scope="session")
def _results_are_as_documented():
    """In place of the fixture of all tests."""
