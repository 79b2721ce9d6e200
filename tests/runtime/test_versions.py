"""Versions of what made a result."""

import numpy as np
import tensorflow as tf

import sare_tf
from sare_tf.runtime import versions


def test_versions_are_those_that_the_packages_state():
    assert versions.of("tensorflow", "no-such-package", "numpy") == {
        "sare_tf": sare_tf.__version__,
        "tensorflow": tf.__version__,
        "no-such-package": None,
        "numpy": np.__version__,
    }
