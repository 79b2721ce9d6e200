"""Compares twenty steps on several replicas with the same on one device.

    python -m benchmarks.replicas --replicas=2

Runs on the first GPUs of the machine, or on logical CPU devices if it has none.
A row is a case. Its columns are the largest difference of the losses of all
steps, the largest difference of the weights at the end, and the span of the
losses. The command fails if a difference is above 1e-5.

A process of TensorFlow has one number of replicas, so the command takes one.
"""

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from sare_tf import losses, model
from sare_tf.distributed import strategies
from sare_tf.losses.keras_losses import PlaceLoss
from sare_tf.training import fine_tuning_optimizers, rate_factors
from sare_tf.training.place_network import PlaceNetwork

FLAGS = flags.FLAGS
flags.DEFINE_integer("replicas", 2, "Number of replicas: 1, 2, 4 or 8.", 1, 8)

STEPS, BATCH, SIZE = 20, 8, 16


def images(rng, *shape):
    """Draws pixels for all steps."""
    pixels = rng.integers(0, 256, (STEPS * BATCH, *shape, SIZE, SIZE, 3))
    return pixels.astype(np.uint8)


def embedder():
    """Builds a small network with NetVLAD."""
    return model.build_embedder(
        backbone="small", aggregation="netvlad", num_clusters=3
    )


def over_tuples():
    """Builds a network over tuples, and its loss."""
    return model.over_tuples(embedder()), losses.SARELoss(inverse_bandwidth=5.0)


def tuples_with_bandwidth():
    """Builds a network over tuples, and SARE that learns its bandwidth."""
    return model.over_tuples(embedder()), losses.SARELoss(
        form="independent",
        kernel="cauchy",
        inverse_bandwidth=losses.InverseBandwidth(5.0),
    )


def over_places(name, **settings):
    """Returns a function that builds a network over places, and its loss."""

    def build():
        loss = losses.build(name, inverse_bandwidth=5.0)
        return PlaceNetwork(embedder(), **settings), loss

    return build


class Together(PlaceLoss):
    """The mean of several losses over places."""

    def __init__(self, parts):
        super().__init__(
            reduction="sum_over_batch_size", name="together", dtype=None
        )
        self.parts = parts

    def call(self, y_true, y_pred):
        return sum(loss.call(y_true, y_pred) for loss in self.parts) / len(
            self.parts
        )


def together():
    """Builds a network over places, and the mean of the losses over pairs."""
    parts = [
        losses.PlaceMultiSimilarityLoss(),
        losses.PlaceNTXentLoss(temperature=0.1),
        losses.PlaceSupConLoss(temperature=0.1),
        losses.PlaceCircleLoss(scale=8.0),
        losses.PlaceFastAPLoss(),
        losses.PlaceSARELoss(inverse_bandwidth=5.0, miner="multi_similarity"),
        losses.PlaceSARELoss(inverse_bandwidth=5.0, hardest_negatives=3),
        losses.build("place_n_pairs"),
        losses.build("place_contrastive"),
        losses.build("place_lifted_structure"),
        losses.build("place_triplet_hard"),
        # Counts pairs over the batch.
        losses.build("place_triplet_semihard"),
    ]
    return PlaceNetwork(embedder()), Together(parts)


def cosface():
    """Builds a network over places, and a loss with weights of its own."""
    loss = losses.PlaceCosFaceLoss(num_places=12, scale=8.0)
    return PlaceNetwork(embedder()), loss


def groups():
    """Builds a network over two parts, and a loss that has groups."""
    loss = losses.PlaceCosFaceLoss(num_places=12, scale=8.0, group_sizes=(5, 7))
    parts = (("one", 6), ("two", 2))
    return PlaceNetwork(embedder(), parts=parts, chunk_images=1), loss


def learned_bandwidth():
    """Builds a network over places, and SARE that learns its bandwidth."""
    bandwidth = losses.InverseBandwidth(5.0)
    return PlaceNetwork(embedder(), chunk_images=1), losses.PlaceSARELoss(
        inverse_bandwidth=bandwidth
    )


def tuple_data(rng):
    """Draws tuples of three images, with dummy targets."""
    return images(rng, 3), np.zeros(STEPS * BATCH, np.float32)


def place_data(rng):
    """Draws images of places, two of each in a batch, with their labels."""
    places = [rng.permutation(12)[: BATCH // 2] for _ in range(STEPS)]
    labels = np.repeat(np.concatenate(places), 2).astype(np.int32)
    return images(rng), labels


def data_with_positions(rng):
    """Draws the same as `place_data`, and the positions of the places."""
    pictures, labels = place_data(rng)
    positions = np.stack([20.0 * labels, 0.0 * labels], axis=1)
    return pictures, {
        "labels": labels,
        "positions": positions.astype(np.float32),
    }


def data_with_weights(rng):
    """Draws the same as `place_data`, and weights of the positives."""
    pictures, labels = place_data(rng)
    weights = rng.uniform(0.1, 1.0, (len(labels), 2)).astype(np.float32)
    return pictures, {"labels": labels, "positive_weights": weights}


WITH_RATES = "places, with rates of backbone and clusters"
CASES = {
    "tuples": (over_tuples, tuple_data),
    "tuples, with a learned bandwidth": (tuples_with_bandwidth, tuple_data),
    "places": (over_places("place_sare_joint"), place_data),
    WITH_RATES: (over_places("place_sare_joint"), place_data),
    "places, losses over pairs": (together, place_data),
    "places, CosFace": (cosface, place_data),
    "places, in two parts, CosFace with groups": (groups, place_data),
    "places, in chunks, with a learned bandwidth and weights": (
        learned_bandwidth,
        data_with_weights,
    ),
    "places, in chunks, with a memory": (
        over_places(
            "place_sare_independent",
            chunk_images=1,
            memory_images=20,
            memory_after_steps=2,
        ),
        data_with_positions,
    ),
}


def _optimizer(network, case):
    """Builds SGD; for one case with rates of its own for each part."""
    if case != WITH_RATES:
        return keras.optimizers.SGD(0.1, momentum=0.9)
    inner = network.get_layer("embedder")
    return fine_tuning_optimizers.build(
        "sgd",
        learning_rate=0.1,
        weight_decay=0.001,
        averaging_momentum=0.9,
        rate_factors=rate_factors.of_embedder(
            inner,
            backbone_rate=0.3,
            head_rate=1.0,
            netvlad_rate=3.0,
            layer_decay=1.0,
        ),
        l2_to_start=0.01,
        num_pulled=len(inner.get_layer("backbone").trainable_weights),
    )


def train(strategy, case):
    """Trains; returns the mean loss up to each step, and the weights."""
    build, data = CASES[case]
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network, loss = build()
        network.compile(_optimizer(network, case), loss)
        network.optimizer.build(network.trainable_variables)
    strategies.check_network(network)
    dataset = tf.data.Dataset.from_tensor_slices(data(rng))
    dataset = dataset.batch(BATCH, drop_remainder=True)
    losses_by_step = []

    def keep_loss(batch, logs):
        losses_by_step.append(logs["loss"])

    network.fit(
        dataset,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(on_train_batch_end=keep_loss)
        ],
    )
    return np.array(losses_by_step), network.get_weights()


def differences(case, strategies):
    """Returns the largest difference of losses, of weights, and their span."""
    (losses_1, weights_1), (losses_n, weights_n) = (
        train(strategy, case) for strategy in strategies
    )
    return (
        np.abs(losses_1 - losses_n).max(),
        max(
            np.abs(a - b).max()
            for a, b in zip(weights_1, weights_n, strict=True)
        ),
        np.ptp(losses_1),
    )


def main(argv):
    """Prints a row per case; fails if replicas do not train as one device."""
    del argv
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    if kind == "CPU":
        cpu = tf.config.list_physical_devices("CPU")[0]
        one = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [one] * FLAGS.replicas)
    devices = tf.config.list_logical_devices(kind)[: FLAGS.replicas]
    if len(devices) < FLAGS.replicas:
        raise app.UsageError(
            f"Expected at most as many replicas as GPUs, {len(devices)}. "
            f"Received: replicas={FLAGS.replicas}."
        )
    strategies = (
        tf.distribute.OneDeviceStrategy(devices[0].name),
        tf.distribute.MirroredStrategy([device.name for device in devices]),
    )
    print(f"{FLAGS.replicas} replicas on {kind} devices beside one.\n")
    print("| case | losses differ by | weights differ by | losses span |")
    print("|---|---:|---:|---:|")
    failed = []
    for case in CASES:
        loss, weights, moved = differences(case, strategies)
        print(f"| {case} | {loss:.0e} | {weights:.0e} | {moved:.0e} |")
        if max(loss, weights) > 1e-5 or moved < 1e-3:
            failed.append(case)
    if failed:
        raise SystemExit(f"Not the same training: {failed}.")


if __name__ == "__main__":
    app.run(main)
