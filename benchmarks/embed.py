"""Compares exported backbones with PyTorch: time of an image.

    make bench-embed
    python -m benchmarks.embed --networks=dinov2_vits14 --sizes=322 --batch=1

Needs the extra `bench`, and a C++ compiler for torch.compile. Both sides have
the same random weights, and the same images, which are in memory as float32.
Each side runs in a process of its own with --threads threads; their calls take
turns. The benchmark also compares the descriptors of both.

sare_tf runs the SavedModel that `export` writes, by its signature
`embed_tensor`. "Keras" is the same network without what `export` does to it.
PyTorch is in inference mode: eager, with channels last, and compiled; in
bfloat16 by autocast. The aggregation is GeM.

Columns: median milliseconds of an image, by the clock; PyTorch's best of the
same type divided by that; the same two by the time of all cores, which depends
least on other work; the arithmetic of convolutions, dense layers and attention
per time of a core, as a share of that of a large matrix product of the same
type by the faster of both libraries (it can exceed 1, because libraries
convolve with fewer products); and the largest difference of a number of a
descriptor from PyTorch's in float32.
"""

import concurrent.futures
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks",
    ["dinov2_vits14", "dinov2_vitb14", "mobilenet_v2", "torchvision_resnet50"],
    "Backbones.",
)
flags.DEFINE_list("sizes", ["224", "322"], "Rows and columns of the images.")
flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Types of products.")
flags.DEFINE_integer("batch", 8, "Images of a call.", 1)
flags.DEFINE_integer("rounds", 7, "Calls of each row.", 1)
flags.DEFINE_integer("threads", os.cpu_count(), "Threads of each side.", 1)
flags.DEFINE_bool("compiled", True, "Whether to measure torch.compile.")

_PATCH = 14
_PRODUCT = 2048
# Calls of this process, by the names of their rows.
_CALLS = {}


def of_tensorflow(network, size, batch, dtypes, folder):
    """Builds and exports a network in this process.

    Returns:
        The descriptors of the first batch by row; weights for PyTorch are in
        the folder.
    """
    import keras
    import tensorflow as tf

    import sare_tf
    from sare_tf import model

    keras.utils.set_random_seed(0)
    embedder = model.build_embedder(backbone=network, aggregation="gem")
    _vary(embedder.get_layer("backbone"))
    np.savez(f"{folder}/weights.npz", **arrays_of(embedder, size // _PATCH))
    images = tf.constant(pictures(batch, size))
    _CALLS.clear()
    for dtype in dtypes:
        given = embedder
        if dtype == "float32":
            any_size = [tf.TensorSpec((None, None, None, 3), tf.float32)]
            plain = tf.function(embedder, input_signature=any_size)
            _CALLS["Keras, float32"] = lambda plain=plain: plain(images)
        else:
            given = model.with_precision(embedder, f"mixed_{dtype}")
        path = sare_tf.export(
            given, f"{folder}/{dtype}", height=size, width=size
        )
        loaded = tf.saved_model.load(str(path))
        _CALLS[f"sare_tf, {dtype}"] = lambda loaded=loaded: loaded.signatures[
            "embed_tensor"
        ](images=images)["descriptor"]
    return {name: call().numpy() for name, call in _CALLS.items()}


def of_torch(network, size, batch, dtypes, folder, compiled):
    """Builds a network in this process.

    Returns:
        The descriptors of the first batch by row, and the arithmetic of a call.
    """
    import torch

    from benchmarks import torch_networks

    torch.set_grad_enabled(False)
    torch._dynamo.reset()
    embedder = torch_networks.build(network, size // _PATCH)
    torch_networks.load(embedder, np.load(f"{folder}/weights.npz"))
    images = torch.from_numpy(pictures(batch, size))
    flops = torch_networks.count_flops(embedder, images)
    networks = {"eager": embedder}
    if not network.startswith("dinov2"):
        last = torch_networks.build(network, size // _PATCH)
        last.load_state_dict(embedder.state_dict())
        last = last.to(memory_format=torch.channels_last)
        networks["channels last"] = last
    _CALLS.clear()
    for dtype in dtypes:
        rows = dict(networks)
        if compiled:
            name, made = list(networks.items())[-1]
            rows[f"{name}, compiled"] = torch.compile(made, dynamic=False)
        for name, made in rows.items():

            def call(made=made, dtype=dtype):
                with (
                    torch.inference_mode(),
                    torch.autocast(
                        "cpu", torch.bfloat16, enabled=dtype == "bfloat16"
                    ),
                ):
                    return made(images)

            _CALLS[f"PyTorch, {name}, {dtype}"] = call
    return {name: call().numpy() for name, call in _CALLS.items()}, flops


def limit_threads(count):
    """Limits both libraries, which are not loaded yet in this process."""
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(count)
    os.environ["TF_NUM_INTEROP_THREADS"] = "1"
    # As stages have it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def timed(name):
    """Returns the seconds of a call, by the clock and of all cores."""
    begin, begin_cores = time.perf_counter(), time.process_time()
    _CALLS[name]()
    return time.perf_counter() - begin, time.process_time() - begin_cores


def prepare_product(library, dtype):
    """Makes a large matrix product in this process a call."""
    shape = (_PRODUCT, _PRODUCT)
    if library == "torch":
        import torch

        a, b = (torch.randn(shape).to(getattr(torch, dtype)) for _ in "ab")
        _CALLS["product"] = lambda: a @ b
    else:
        import tensorflow as tf

        a, b = (tf.cast(tf.random.normal(shape), dtype) for _ in "ab")
        product = tf.function(lambda: tf.matmul(a, b))
        # One element, so that the product is finished.
        _CALLS["product"] = lambda: product()[0, 0].numpy()
    _CALLS["product"]()


def pictures(count, size):
    """Draws coloured blocks, float32 [count, size, size, 3]."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (count, -(-size // 16), -(-size // 16), 3))
    large = blocks.repeat(16, axis=1).repeat(16, axis=2)
    return np.float32(large[:, :size, :size])


def _vary(backbone):
    """Gives normalisations other statistics than 0 and 1."""
    import keras

    rng = np.random.default_rng(0)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(
                [
                    np.float32(low + rng.random(weight.shape) * (high - low))
                    for weight, (low, high) in zip(
                        layer.weights,
                        ((0.8, 1.2), (-0.1, 0.1), (-0.1, 0.1), (0.8, 1.2)),
                        strict=True,
                    )
                ]
            )


def arrays_of(embedder, side):
    """Returns the weights of a backbone in PyTorch's layouts.

    Args:
        embedder: of a backbone of torchvision or of DINOv2 without registers.
        side: rows and columns of patches, for which positions are made.

    Returns:
        Arrays by the names that PyTorch gives them, `_` for `.`.
    """
    from keras import layers

    from sare_tf.model import position_grid

    arrays = {}
    for layer in embedder.get_layer("backbone").layers:
        weights = layer.get_weights()
        name = layer.name
        if name.startswith("block"):
            name = "blocks_" + name.removeprefix("block")
        if name == "embedding":
            kernel, bias, first, positions = weights
            arrays["embedding_weight"] = kernel.transpose(3, 2, 0, 1)
            arrays["embedding_bias"] = bias
            arrays["first"] = first + positions[0]
            grid = positions[1:].reshape(37, 37, -1)
            arrays["positions"] = np.asarray(
                position_grid.interpolate(grid, side, side, antialias=False)
            )
        elif name.endswith(("_ls1", "_ls2")):
            arrays[name] = weights[0]
        else:
            words = ("weight", "bias", "running_mean", "running_var")
            for word, array in zip(words, weights, strict=False):
                if isinstance(layer, layers.DepthwiseConv2D):
                    array = array.transpose(2, 3, 0, 1)
                elif array.ndim == 4:
                    array = array.transpose(3, 2, 0, 1)
                elif array.ndim == 2:
                    array = array.T
                arrays[f"{name}_{word}"] = np.ascontiguousarray(array)
    return arrays


class Side:
    """A library in a process of its own."""

    def __init__(self, name: str):
        self.name = name
        self._process = concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")
        )

    def __call__(self, function, *arguments):
        return self._process.submit(function, *arguments).result()

    def close(self) -> None:
        """Ends the process."""
        self._process.shutdown()


def by_turns(sides, names):
    """Returns median seconds of each row, by the clock and of all cores.

    The first round warms up.
    """
    seconds = {name: [] for name in names}
    for turn, (name, side) in itertools.product(
        range(FLAGS.rounds + 1), names.items()
    ):
        taken = sides[side](timed, name)
        if turn:
            seconds[name].append(taken)
    return {
        name: tuple(map(statistics.median, zip(*taken, strict=True)))
        for name, taken in seconds.items()
    }


def matrix_rates(sides):
    """Returns flops per second of a core, by type, of the faster side."""
    rates = {}
    for dtype in FLAGS.dtypes:
        seconds = []
        for library, side in sides.items():
            side(prepare_product, library, dtype)
            seconds += [side(timed, "product")[1] for _ in range(9)]
        rates[dtype] = 2.0 * _PRODUCT**3 / min(seconds)
    return rates


def compare(sides, network, size, rates):
    """Prints the rows of a network and a size."""
    with tempfile.TemporaryDirectory() as folder:
        settings = (network, size, FLAGS.batch, FLAGS.dtypes)
        ours = sides["tensorflow"](of_tensorflow, *settings, folder)
        theirs, flops = sides["torch"](
            of_torch, *settings, folder, FLAGS.compiled
        )
        expected = theirs[f"PyTorch, eager, {FLAGS.dtypes[0]}"]
        names = dict.fromkeys(ours, "tensorflow") | dict.fromkeys(
            theirs, "torch"
        )
        seconds = by_turns(sides, names)
    for name, descriptors in {**ours, **theirs}.items():
        dtype = name.rpartition(" ")[2]
        best = [
            min(
                taken[kind]
                for other, taken in seconds.items()
                if other.startswith("PyTorch") and other.endswith(f" {dtype}")
            )
            for kind in (0, 1)
        ]
        clock, cores = seconds[name]
        difference = np.abs(descriptors - expected).max()
        print(
            f"| {network} | {size} | {name} "
            f"| {1000 * clock / FLAGS.batch:.1f} | {best[0] / clock:.2f} "
            f"| {1000 * cores / FLAGS.batch:.1f} | {best[1] / cores:.2f} "
            f"| {flops / cores / rates[dtype]:.2f} | {difference:.0e} |",
            flush=True,
        )


def main(argv):
    del argv
    sides = {name: Side(name) for name in ("tensorflow", "torch")}
    for side in sides.values():
        side(limit_threads, FLAGS.threads)
    rates = matrix_rates(sides)
    print(
        f"Batches of {FLAGS.batch}, {FLAGS.threads} threads. Large matrix "
        "products, per core: "
        + ", ".join(
            f"{rate / 1e9:,.0f} Gflop/s in {dtype}"
            for dtype, rate in rates.items()
        )
        + ".\n\n| backbone | size | | ms per image | times PyTorch at its best "
        "| core ms per image | times PyTorch by core time | of the matrix rate "
        "| largest difference |\n|---|---:|---|---:|---:|---:|---:|---:|---:|"
    )
    for network, size in itertools.product(FLAGS.networks, FLAGS.sizes):
        compare(sides, network, int(size), rates)
    for side in sides.values():
        side.close()


if __name__ == "__main__":
    app.run(main)
