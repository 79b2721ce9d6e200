"""TensorFlow without Keras: what is loaded, and that the rest still works."""

import os
import subprocess
import sys

from paths import ROOT

_PROGRAM = """
import sys
from sare_tf.runtime import tensorflow_import

tensorflow_import.without_keras()
assert "tensorflow" in sys.modules
for name in ("keras", "keras.src", "sklearn", "matplotlib", "scipy", "h5py"):
    assert name not in sys.modules, name
import tensorflow as tf
import sare_tf.search.locator
assert "keras" not in sys.modules
import h5py, keras, scipy.sparse
layer = keras.layers.Dense(3)
assert layer(tf.ones((1, 2))).shape == (1, 3)
assert tf.keras.layers.Dense is keras.layers.Dense
from tensorflow.keras.optimizers import SGD
tensorflow_import.without_keras()
assert sys.modules["keras"] is keras
"""


def test_keras_is_imported_only_when_it_is_used():
    subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
