"""Twenty steps on one device and on several: losses and weights agree.

    python tests/replicas.py <replicas> [gpu]

In a process of its own, since TensorFlow lets a process have one number of
replicas. Without `gpu` the replicas are logical CPU devices.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from sare_tf import distribution, losses, model
from sare_tf.place_network import PlaceNetwork

STEPS, BATCH, SIZE = 20, 8, 16


def images(rng, *shape):
    pixels = rng.integers(0, 256, (STEPS * BATCH, *shape, SIZE, SIZE, 3))
    return pixels.astype(np.uint8)


def embedder():
    return model.build_embedder(
        backbone="small", aggregation="netvlad", num_clusters=3
    )


def over_tuples(rng):
    del rng
    return model.over_tuples(embedder()), losses.SARELoss(inverse_bandwidth=5.0)


def over_places(name, **settings):
    def make(rng):
        del rng
        loss = losses.build(name, inverse_bandwidth=5.0)
        return PlaceNetwork(embedder(), **settings), loss

    return make


def tuple_data(rng):
    return images(rng, 3), np.zeros(STEPS * BATCH, np.float32)


def place_data(rng):
    places = [rng.permutation(12)[: BATCH // 2] for _ in range(STEPS)]
    labels = np.repeat(np.concatenate(places), 2).astype(np.int32)
    return images(rng), labels


def data_with_positions(rng):
    pictures, labels = place_data(rng)
    positions = np.stack([20.0 * labels, 0.0 * labels], axis=1)
    return pictures, {
        "labels": labels,
        "positions": positions.astype(np.float32),
    }


CASES = {
    "tuples": (over_tuples, tuple_data),
    "places": (over_places("place_sare_joint"), place_data),
    "places, N-pairs": (over_places("place_n_pairs"), place_data),
    "places, pairs counted over the batch": (
        over_places("place_triplet_semihard"),
        place_data,
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


def train(strategy, case):
    """Trains; returns the mean loss up to each step, and the weights."""
    make, data = CASES[case]
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        network, loss = make(rng)
        network.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
        network.optimizer.build(network.trainable_variables)
    distribution.check_network(network)
    dataset = tf.data.Dataset.from_tensor_slices(data(rng))
    dataset = dataset.batch(BATCH, drop_remainder=True)
    shown = []

    def keep(batch, logs):
        shown.append(logs["loss"])

    network.fit(
        dataset,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=keep)],
    )
    return np.array(shown), [np.array(v) for v in network.get_weights()]


def differences(case, strategies):
    """Largest difference of losses and of weights, and how far both moved."""
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


def main():
    """Prints a row per case; fails where replicas do not train as one."""
    replicas = int(sys.argv[1])
    kind = "GPU" if "gpu" in sys.argv else "CPU"
    if kind == "CPU":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * replicas
        )
    devices = tf.config.list_logical_devices(kind)[:replicas]
    strategies = (
        tf.distribute.OneDeviceStrategy(devices[0].name),
        tf.distribute.MirroredStrategy([device.name for device in devices]),
    )
    for case in CASES:
        loss, weights, moved = differences(case, strategies)
        sys.stdout.write(f"{case}: loss {loss:.1e}, weights {weights:.1e}\n")
        assert moved > 1e-3, (case, moved)
        assert loss <= 1e-5, (case, loss)
        assert weights <= 1e-5, (case, weights)


if __name__ == "__main__":
    main()
