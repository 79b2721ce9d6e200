"""All backends of Keras compute the same, and load each other's models.

`make test-backends` runs this: `exchange.py` with each backend, then this file
with each of them on what the others wrote.
"""

import os
import sys
from pathlib import Path

import exchange
import keras
import numpy as np
import pytest

FOLDER = os.environ.get("SARE_TF_BACKENDS")
if not FOLDER:
    pytest.skip(
        "compares backends: run by make test-backends", allow_module_level=True
    )

OTHERS = sorted(
    path.stem
    for path in Path(FOLDER).glob("*.npz")
    if path.stem != exchange.BACKEND
)


@pytest.fixture(scope="module")
def calculations():
    return exchange.calculations()


def written(backend):
    with np.load(Path(FOLDER) / f"{backend}.npz") as arrays:
        return dict(arrays)


def test_others_wrote():
    assert OTHERS


@pytest.mark.skipif(
    exchange.BACKEND == "tensorflow", reason="is about the other backends"
)
def test_tensorflow_is_not_needed():
    assert "tensorflow" not in sys.modules


def test_every_layer_and_loss_is_compared(calculations):
    names = {name.partition("-")[0] for name in calculations}
    layers = {
        name
        for name, kind in exchange.registered(keras.layers.Layer).items()
        if not issubclass(kind, keras.Model)
    }
    assert layers <= names
    assert "SARELoss" in names
    assert names - layers == {
        "PlaceCosFaceLoss",
        *(name.partition("-")[0] for name, _ in exchange.losses()),
    }


@pytest.mark.parametrize("other", OTHERS)
def test_values_and_gradients_are_those_of(other, calculations):
    found, expected = written(exchange.BACKEND), written(other)
    assert {name.partition("/")[0] for name in found} == {
        *calculations,
        "network",
    }
    assert set(found) == set(expected)
    for name in set(found) - {"network/value"}:
        np.testing.assert_allclose(
            found[name], expected[name], atol=1e-5, rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("other", OTHERS)
def test_models_are_loaded_from(other):
    network = keras.saving.load_model(Path(FOLDER) / f"{other}.keras")
    found = network.predict(exchange.pictures(), verbose=0)
    expected = written(other)["network/value"]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
