"""Compares fine-tuning steps with PyTorch: the last four blocks are trained.

    python -m benchmarks.finetune_step
    python -m benchmarks.finetune_step --networks=dinov2_vits14 --sizes=322

Needs the extra `bench`. Both sides have the same weights and images, GeM with
the exponent 3, SARE-Joint, and SGD with momentum; a step trains on one tuple of
--batch images. The benchmark prints how far descriptors and the losses of the
first steps differ. Steps take uint8 images in memory, by Keras's `fit` or a
plain loop in PyTorch, in its default layout and with channels last. With
--cache_frozen, `fit` reads stored features from the disk, as training does.

Every row is a process of its own, and calls take turns. "times PyTorch" is the
median over turns of the time of PyTorch's faster row of the turn, divided by
ours; "times without" compares with our row without the cache in the same way.
"peak" is the most memory that steps take above what the process holds before
the first one, which also builds graphs.
"""

import itertools
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags

from benchmarks import embed, measure

# Those of `embed`, with other defaults.
FLAGS = flags.FLAGS
flags.DEFINE_integer("steps", 2, "Steps of a timed call.", 1)

_RATE, _MOMENTUM = 1e-3, 0.9
# Untrained networks make descriptors that are nearly alike.
_INVERSE_BANDWIDTH = 1e4
_PATCH = 14
# First trained block of ours, and beginnings of PyTorch's trained weights.
_BLOCKS = {
    "mobilenet_v2": (
        "features_10",
        tuple(f"features.{number}." for number in range(10, 14)),
    ),
    "dinov2_vits14": (
        "block8",
        ("norm.", *(f"blocks.{number}." for number in range(8, 12))),
    ),
}
_OURS, _CACHED = "sare_tf", "sare_tf, --cache_frozen"
_TORCH = {"PyTorch": False, "PyTorch, channels last": True}
# In a row's process: what it does in a turn.
_CALLS = {}


def tuples_of(images, size, steps):
    """Draws tuples of coloured blocks, uint8 [steps, images, H, W, 3]."""
    rng = np.random.default_rng(0)
    side = -(-size // 16)
    blocks = rng.integers(0, 256, (steps, images, side, side, 3), np.uint8)
    return blocks.repeat(16, 2).repeat(16, 3)[:, :, :size, :size].copy()


def our_network(network, size):
    """Builds our network over tuples, compiled, and the options."""
    import keras

    from sare_tf.training import compiled_network
    from sare_tf.training.options import TrainingOptions

    keras.utils.set_random_seed(0)
    options = TrainingOptions(
        records="records",
        checkpoints="checkpoints",
        backbone=network,
        aggregation="gem",
        train_from=_BLOCKS[network][0],
        image_height=size,
        image_width=size,
        learning_rate=_RATE,
        weight_decay=0.0,
        inverse_bandwidth=_INVERSE_BANDWIDTH,
    )
    whole = compiled_network.build(None, options)
    embedder = whole.get_layer("embedder")
    # The exponent is fixed on the other side.
    embedder.layers[-1].trainable = False
    embed._vary(embedder.get_layer("backbone"))
    whole.compile(
        optimizer=keras.optimizers.SGD(_RATE, momentum=_MOMENTUM),
        loss=whole.loss,
    )
    return whole, options


def prepare_ours(network, size, images, steps, folder, is_cached):
    """Makes our row in this process.

    Returns:
        The descriptors of the first tuple before training.
    """
    import pandas as pd
    import tensorflow as tf

    from sare_tf.model import graph_parts
    from sare_tf.runtime import tfdata_threads
    from sare_tf.training import compiled_network, datasets
    from sare_tf.training.frozen_features import FrozenFeatures, Origin

    whole, options = our_network(network, size)
    embedder = whole.get_layer("embedder")
    tuples = tuples_of(images, size, steps)
    descriptors = embedder.predict(tuples[0], verbose=0)
    zeros = np.zeros(steps, np.float32)
    if not is_cached:
        np.savez(
            f"{folder}/weights.npz", **embed.arrays_of(embedder, size // _PATCH)
        )
        data = tfdata_threads.fixed(
            tf.data.Dataset.from_tensor_slices((tuples, zeros))
            .batch(1)
            .prefetch(2)
        )
        form = compiled_network.form_of(embedder, options)
        trained = compiled_network.over(whole, form, options)
    else:
        halves = graph_parts.split(
            embedder, height=size, width=size, recompute=False
        )
        count = steps * images
        origin = Origin(
            **dict.fromkeys(("records", "images", "backbone", "layers"), ""),
            train_from=halves.train_from,
            image_height=size,
            image_width=size,
            dtype=halves.dtype,
            numbers=halves.frozen.output_shape[-1],
        )
        manifest = pd.DataFrame(
            {"image_id": [str(number) for number in range(count)]}
        )
        features = FrozenFeatures(
            f"{folder}/frozen", manifest, np.arange(count), origin
        )
        flat = tuples.reshape(-1, *tuples.shape[2:])
        features.build(
            halves.frozen,
            lambda rows, batch_size: tf.data.Dataset.from_tensor_slices(
                flat[rows.index]
            ).batch(batch_size),
            features.absent(()),
            batch_size=images,
            bad=(),
        )
        data = datasets.tuple_dataset(
            features,
            np.arange(count).reshape(steps, images),
            height=size,
            width=size,
            tuples_per_batch=1,
        )
        trained = compiled_network.over(whole, halves.trained, options)
    _CALLS["row"] = lambda: trained.fit(data, shuffle=False, verbose=0).history[
        "loss"
    ][0]
    return descriptors


def prepare_torch(network, size, images, steps, folder, channels_last):
    """Makes a row of PyTorch in this process.

    Returns:
        The descriptors of the first tuple before training.
    """
    import torch

    from benchmarks import torch_networks, torch_reference

    with torch.no_grad():
        embedder = torch_networks.build(network, size // _PATCH)
        torch_networks.load(embedder, np.load(f"{folder}/weights.npz"))
    for name, weight in embedder.network.named_parameters():
        is_norm = network == "mobilenet_v2" and weight.ndim == 1
        # As in ours, batch normalisation is frozen.
        weight.requires_grad_(
            name.startswith(_BLOCKS[network][1]) and not is_norm
        )
    if channels_last:
        embedder = embedder.to(memory_format=torch.channels_last)
    trained = [each for each in embedder.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=_RATE, momentum=_MOMENTUM)
    tuples = tuples_of(images, size, steps)

    def descriptors_of(tuple_of_images):
        return embedder(torch.from_numpy(tuple_of_images).float())

    def call():
        losses = []
        for each in tuples:
            descriptors = descriptors_of(each)
            loss = torch_reference.sare_joint(
                descriptors[None] * _INVERSE_BANDWIDTH**0.5
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    _CALLS["row"] = call
    with torch.inference_mode():
        return descriptors_of(tuples[0]).numpy()


def first_call():
    """Calls the row; returns its loss and the memory that it took."""
    before = measure.resident_bytes()
    measure.reset_peak()
    loss = _CALLS["row"]()
    return loss, measure.peak_bytes() - before


def seconds_of_call():
    """Calls the row; returns its seconds."""
    begin = time.perf_counter()
    _CALLS["row"]()
    return time.perf_counter() - begin


def compare(network, size):
    """Prints the rows of a network."""
    settings = (network, size, FLAGS.batch, FLAGS.steps)
    rows = {_OURS: False, _CACHED: True} | _TORCH
    sides = {name: embed.Side(name) for name in rows}
    with tempfile.TemporaryDirectory() as folder:
        descriptors, first = {}, {}
        for name, setting in rows.items():
            sides[name](embed.limit_threads, FLAGS.threads)
            prepare = prepare_torch if name in _TORCH else prepare_ours
            descriptors[name] = sides[name](prepare, *settings, folder, setting)
            first[name] = sides[name](first_call)
            sides[name](seconds_of_call)
        turns = {name: [] for name in rows}
        for _, name in itertools.product(range(FLAGS.rounds), rows):
            turns[name].append(sides[name](seconds_of_call))
    for side in sides.values():
        side.close()
    theirs = np.min([turns[name] for name in _TORCH], axis=0)
    for name, seconds in turns.items():
        loss, peak = first[name]
        difference = np.abs(descriptors[name] - descriptors["PyTorch"]).max()
        print(
            f"| {network} | {size} | {name} "
            f"| {1000 * statistics.median(seconds) / FLAGS.steps:.0f} "
            f"| {np.median(theirs / seconds):.2f} "
            f"| {np.median(np.divide(turns[_OURS], seconds)):.2f} "
            f"| {peak / measure.MEBIBYTE:.0f} | {loss:.6f} "
            f"| {difference:.0e} |",
            flush=True,
        )


def main(argv):
    del argv
    print(
        f"Tuples of {FLAGS.batch} images, {FLAGS.rounds} turns.\n\n"
        "| network | size | | ms of a step | times PyTorch | times without | "
        "peak MiB | loss | largest difference |\n"
        "|---|---:|---|---:|---:|---:|---:|---:|---:|"
    )
    for network, size in itertools.product(FLAGS.networks, FLAGS.sizes):
        compare(network, int(size))


if __name__ == "__main__":
    for flag, default in (
        ("networks", list(_BLOCKS)),
        ("sizes", ["224"]),
        ("batch", 12),
        ("rounds", 9),
    ):
        FLAGS.set_default(flag, default)
    app.run(main)
