"""Settings that must be in place before TensorFlow is imported.

The fixtures are read by the tests of several modules, which must not change
their files.
"""

import os

import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One core for each process that runs tests. Two cores shared by two
    # TensorFlows are slower than either way alone.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

# The same examples in every run, however slow the machine is.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def toy_records(tmp_path_factory):
    """The folder of tiny records in three splits, see `toy_training`."""
    import toy_training

    return toy_training.records(tmp_path_factory.mktemp("toy_records"))


@pytest.fixture(scope="session")
def toy_run(toy_records, tmp_path_factory):
    """A run on `toy_records` with the options of `toy_training`.

    It was never disturbed; its attributes are folders: `finished`, and copies
    `after[epoch]` of what it was after each epoch.
    """
    import toy_training

    return toy_training.RecordedRun(
        tmp_path_factory.mktemp("toy_run"),
        records=toy_records,
        **toy_training.OPTIONS,
    )
