"""One epoch: its loss by hand, its arithmetic, and values not finite."""

import keras
import numpy as np
import pytest
import toy_training

from sare_tf.dataset import tuple_lists
from sare_tf.records.records import Records
from sare_tf.training import compiled_network, datasets, epoch_loop
from sare_tf.training.divergence import Diverged
from sare_tf.training.tensorboard import TrainingLog
from sare_tf.training.training_data import TrainingData


class Training:
    """A network, and the data that it is trained on for an epoch."""

    def __init__(self, records, folder, **changes):
        options = toy_training.options(**changes)
        keras.utils.set_random_seed(0)
        self.data = TrainingData.of(Records(records), options)
        self.network = compiled_network.build(self.data.train, options)
        self.remembered = self.data.miner.no_memory()
        self._log = TrainingLog(folder, epochs=0)

    def epoch(self):
        self._log.begin(1)
        measured, mined, self.remembered = epoch_loop.train(
            self.network,
            self.data,
            1,
            remembered=self.remembered,
            log=self._log,
            callbacks=[],
        )
        return measured, mined


def sare(descriptors, form, kernel, inverse_bandwidth):
    """The paper's equations, in plain numpy loops over tuples."""
    similarity = {
        "cauchy": lambda d: 1 / (1 + inverse_bandwidth * d),
        "exponential": lambda d: np.exp(-np.sqrt(inverse_bandwidth * d)),
    }[kernel]
    losses = []
    for query, positive, *negatives in descriptors:
        attracted = similarity(np.sum((query - positive) ** 2))
        repelled = [similarity(np.sum((query - n) ** 2)) for n in negatives]
        if form == "joint":
            repelled = [sum(repelled)]
        losses.append(
            np.mean([-np.log(attracted / (attracted + r)) for r in repelled])
        )
    return np.mean(losses)


@pytest.mark.parametrize(
    ("form", "kernel", "optimizer"),
    [("independent", "cauchy", "sgd"), ("joint", "exponential", "adam")],
)
def test_the_loss_of_an_epoch_is_that_of_its_tuples(
    toy_records, tmp_path, form, kernel, optimizer
):
    """One step of 6 of the 12 queries, before which the weights are known."""
    training = Training(
        toy_records,
        tmp_path,
        loss=f"sare_{form}",
        kernel=kernel,
        optimizer=optimizer,
        queries_per_epoch=6,
        tuples_per_batch=6,
        halve_every=0,
    )
    untrained = keras.models.clone_model(training.network)
    untrained.set_weights(training.network.get_weights())
    measured, table = training.epoch()
    records = training.data.records
    dataset = datasets.tuple_dataset(
        records,
        tuple_lists.find(table, records.manifest),
        height=32,
        width=32,
        tuples_per_batch=6,
    )
    ((images, _),) = dataset
    descriptors = keras.ops.convert_to_numpy(untrained(images, training=True))
    assert descriptors.shape == (6, 4, 384)
    expected = sare(descriptors.astype(np.float64), form, kernel, 10.0)
    assert measured["loss"] == pytest.approx(expected, rel=1e-4)
    # The other 6 queries have no negatives to remember.
    assert (training.remembered >= 0).all(axis=1).sum() == 6


def test_only_the_aggregation_is_trained(toy_records, tmp_path):
    training = Training(
        toy_records,
        tmp_path,
        train_from="aggregation",
        queries_per_epoch=3,
    )
    embedder = training.network.get_layer("embedder")
    layers = {
        name: embedder.get_layer(name) for name in ("backbone", "netvlad")
    }
    before = {name: layer.get_weights() for name, layer in layers.items()}
    training.epoch()
    for name, stays in (("backbone", True), ("netvlad", False)):
        after = layers[name].get_weights()
        for one, other in zip(before[name], after, strict=True):
            assert np.array_equal(one, other) == stays


@pytest.fixture(scope="module")
def plain_loss(toy_records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return Training(
        toy_records, folder, jit_compile=False, **ARITHMETIC
    ).epoch()[0]["loss"]


# Two steps of one round: the second has the weights that the first changed.
ARITHMETIC = {"inverse_bandwidth": 0.1, "queries_per_epoch": 6}


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"precision": "mixed_bfloat16", "jit_compile": False}, 0.02),
        ({"jit_compile": True}, 1e-4),
    ],
    ids=["bfloat16", "compiled"],
)
def test_other_arithmetic_trains_as_well(
    toy_records, tmp_path, plain_loss, changes, tolerance
):
    """bfloat16 has 8 bits, 0.4 percent; XLA only adds in another order."""
    training = Training(toy_records, tmp_path, **ARITHMETIC, **changes)
    measured, _ = training.epoch()
    assert plain_loss > 0.1
    assert measured["loss"] == pytest.approx(plain_loss, rel=tolerance)
    assert training.network.jit_compile == changes["jit_compile"]
    for weight in training.network.weights:
        assert weight.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_a_loss_that_is_not_finite_stops_training(toy_records, tmp_path):
    training = Training(
        toy_records, tmp_path, optimizer="sgd", learning_rate=1e38
    )
    with pytest.raises(Diverged, match="Expected a finite .* Received"):
        training.epoch()


def test_a_step_that_spoils_only_the_weights(toy_records, tmp_path):
    """One step: its loss is computed before the weights overflow."""
    training = Training(
        toy_records,
        tmp_path,
        optimizer="sgd",
        learning_rate=3e38,
        weight_decay=1e6,
        tuples_per_batch=12,
    )
    with pytest.raises(Diverged, match="Expected finite weights. Received"):
        training.epoch()
