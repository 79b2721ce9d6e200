"""Prints how far apart the numbers were that each test compared.

    PYTHONPATH=tests python -m pytest -p largest_differences tests/weights

docs/networks.md has the differences of the networks from their originals.
"""

import numpy as np
import pytest

_LARGEST = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """Listens to `np.testing.assert_allclose` during a test."""
    compare = np.testing.assert_allclose

    def listening(actual, desired, *args, **options):
        compare(actual, desired, *args, **options)
        difference = np.abs(np.float64(actual) - np.float64(desired))
        _LARGEST[item.nodeid] = max(
            _LARGEST.get(item.nodeid, 0.0), difference.max(initial=0.0)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np.testing, "assert_allclose", listening)
        yield


def pytest_terminal_summary(terminalreporter):
    """Prints a line per test that compared numbers."""
    terminalreporter.section("largest differences")
    for test, difference in sorted(_LARGEST.items()):
        terminalreporter.write_line(f"{difference:.1e}  {test}")
