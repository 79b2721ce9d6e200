"""Settings that must be in place before TensorFlow is imported."""

import os

from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

# The same examples in every run, however slow the machine is.
settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None
)
settings.load_profile("tests")
