"""Accuracies of classes are refused as metrics of descriptors."""

import keras
import numpy as np
import pytest

from sare_tf import losses, model
from sare_tf.training.place_network import PlaceNetwork

LABELS = np.array([0, 0, 1, 1])
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3))


@pytest.fixture(scope="module")
def embedder():
    return model.build_embedder(backbone="small", aggregation="gem")


def largest(y_true, y_pred):
    del y_true
    return keras.ops.max(y_pred, axis=-1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["accuracy"]}, "accuracy in metrics.*'accuracy'.*recall"),
        ({"metrics": ["acc"]}, "'acc'"),
        ({"metrics": [[largest, "accuracy"]]}, "'accuracy'"),
        (
            {"weighted_metrics": [keras.metrics.SparseCategoricalAccuracy()]},
            "in weighted_metrics.*SparseCategoricalAccuracy",
        ),
        (
            {"metrics": [keras.metrics.binary_accuracy]},
            "binary_accuracy",
        ),
    ],
)
def test_accuracy_is_refused(embedder, settings, message):
    tuples = model.over_tuples(embedder)
    tuples.compile("sgd", losses.SARELoss(), **settings)
    places = PlaceNetwork(embedder)
    places.compile("sgd", losses.PlaceSARELoss(), **settings)
    embedder.compile("sgd", losses.PlaceSARELoss(), **settings)
    for network, x, y in (
        (tuples, IMAGES[None], np.zeros(1)),
        (places, IMAGES, LABELS),
        (embedder, IMAGES, LABELS),
    ):
        for train in (network.fit, network.evaluate):
            with pytest.raises(ValueError, match=message):
                train(x, y, verbose=0)


def test_other_metrics_are_not(embedder):
    places = PlaceNetwork(embedder)
    places.compile("sgd", losses.PlaceSARELoss(), metrics=[largest])
    for call in (places.train_on_batch, places.test_on_batch):
        found = call(IMAGES, LABELS, return_dict=True)
        assert 0 < found["largest"] <= 1
