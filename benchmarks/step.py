"""Compares training steps of VGG16, NetVLAD and SARE-Joint with PyTorch.

    python -m benchmarks.step
    python -m benchmarks.step --backend=jax --dtype=bfloat16 --height=480 \
        --width=640 --tuples=4 --images_of_tuple=12 --clusters=64

Needs the extra `bench`. Both sides have the same weights, images and SGD with
momentum. The benchmark first compares their descriptors, and the losses of the
steps that follow. A step takes uint8 images in memory, by Keras's `fit` or a
plain loop in PyTorch: in PyTorch's default layout, with channels last, and on a
GPU also compiled. bfloat16 is PyTorch's autocast and Keras's policy
mixed_bfloat16.

"of the matrix rate" counts only the arithmetic of the convolutions: forward,
and backward for the trained ones. It is their rate divided by the rate of one
large matrix product of the same type, by PyTorch on the same device. It can
exceed 1, because libraries convolve with fewer products. Calls take turns, and
rates are from medians. The time of all cores depends least on other work on the
machine; on a GPU it means little.
"""

import os

import numpy as np
import torch
from absl import app, flags

from benchmarks import torch_reference

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "backend", "tensorflow", ["tensorflow", "jax"], "Backend of Keras."
)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Type of products."
)
flags.DEFINE_integer("height", 120, "Rows of an image.", 32)
flags.DEFINE_integer("width", 160, "Columns of an image.", 32)
flags.DEFINE_integer("tuples", 1, "Tuples of a step.", 1)
flags.DEFINE_integer(
    "images_of_tuple", 12, "Images of a tuple: query, positive, negatives.", 3
)
flags.DEFINE_integer("clusters", 64, "Clusters of NetVLAD.", 2)
flags.DEFINE_integer("steps", 2, "Steps of a timed call.", 1)
flags.DEFINE_integer("repeats", 5, "Calls of each row.", 1)

_RATE, _MOMENTUM = 1e-3, 0.9


def pictures(rng, count):
    """Draws coloured blocks, uint8 [count, H, W, 3]; noise looks alike."""
    rows, columns = -(-FLAGS.height // 16), -(-FLAGS.width // 16)
    blocks = rng.integers(0, 256, (count, rows, columns, 3), np.uint8)
    large = blocks.repeat(16, axis=1).repeat(16, axis=2)
    return large[:, : FLAGS.height, : FLAGS.width].copy()


def keras_network():
    """Builds our network over tuples, compiled, and its embedder."""
    import keras

    from sare_tf import losses, model

    keras.utils.set_random_seed(0)
    if FLAGS.dtype == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    embedder = model.build_embedder(
        num_clusters=FLAGS.clusters, image_size=(FLAGS.height, FLAGS.width)
    )
    # With initial weights all images have nearly the same descriptor.
    aggregation = embedder.get_layer("netvlad")
    aggregation.assignment.assign(aggregation.assignment * 50.0)
    for layer in embedder.get_layer("backbone").layers:
        if layer.weights:
            layer.kernel.assign(layer.kernel * 2**0.5)
    network = model.over_tuples(embedder)
    network.compile(
        optimizer=keras.optimizers.SGD(_RATE, momentum=_MOMENTUM),
        loss=losses.SARELoss(),
    )
    return network, embedder


def in_batches(arrays, size):
    """Returns arguments of `fit`: a tf.data dataset on TensorFlow.

    Keras would make a dataset that tunes itself, see `tfdata_threads`.
    """
    if FLAGS.backend != "tensorflow":
        return {"x": arrays[0], "y": arrays[1], "batch_size": size}
    import tensorflow as tf

    from sare_tf.runtime import tfdata_threads

    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(size)
    return {"x": tfdata_threads.fixed(batches.prefetch(2))}


def torch_step(network, device, *, channels_last):
    """Returns a function that trains on tuples, uint8 [B, T, H, W, 3]."""
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    trained = [
        weight for weight in network.parameters() if weight.requires_grad
    ]
    optimizer = torch.optim.SGD(trained, lr=_RATE, momentum=_MOMENTUM)
    dtype = getattr(torch, FLAGS.dtype)

    def step(tuples):
        images = torch.from_numpy(tuples).to(device).flatten(0, 1)
        with torch.autocast(
            device, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16
        ):
            descriptors = network(images)
        loss = torch_reference.sare_joint(
            descriptors.unflatten(0, tuples.shape[:2])
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def torch_steps(weights, device):
    """Returns the rows of PyTorch: functions that train, by their names."""

    def reference():
        return torch_reference.Reference(weights).to(device)

    steps = {
        f"PyTorch{name}": torch_step(
            reference(), device, channels_last=channels_last
        )
        for name, channels_last in (("", False), (", channels last", True))
    }
    if device == "cuda":
        compiled = torch.compile(
            reference().to(memory_format=torch.channels_last)
        )
        steps["PyTorch, channels last, compiled"] = torch_step(
            compiled, device, channels_last=False
        )
    return steps


def main(argv):
    del argv
    os.environ["KERAS_BACKEND"] = FLAGS.backend
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    shape = (FLAGS.images_of_tuple, FLAGS.height, FLAGS.width, 3)
    count = FLAGS.tuples * FLAGS.steps
    tuples = pictures(rng, count * shape[0]).reshape(count, *shape)
    targets = np.zeros(count, np.float32)
    network, embedder = keras_network()
    weights = torch_reference.weights_of(embedder)
    with torch.inference_mode():
        reference = torch_reference.Reference(weights).to(device)
        expected = reference(torch.from_numpy(tuples[0]).to(device))
    descriptors = embedder.predict(tuples[0], verbose=0)
    difference = np.abs(descriptors - expected.cpu().numpy()).max()
    steps = torch_steps(weights, device)
    data = in_batches((tuples, targets), FLAGS.tuples)

    def fit():
        return network.fit(**data, shuffle=False, verbose=0)

    ours = fit().history["loss"][0]
    batches = np.split(tuples, FLAGS.steps)
    theirs = np.mean([float(steps["PyTorch"](batch)) for batch in batches])
    print(
        f"{count // FLAGS.steps} tuples of {shape[0]} images of {shape[1]} x "
        f"{shape[2]} pixels, {FLAGS.clusters} clusters, {FLAGS.dtype}, Keras "
        f"on {FLAGS.backend}, {device}. Largest difference of descriptors: "
        f"{difference:.0e}; mean loss of {FLAGS.steps} steps: {ours:.6f} and "
        f"{theirs:.6f}.\n"
    )

    def run(step):
        for batch in batches:
            step(batch)
        torch_reference.synchronise(device)

    calls = {name: lambda step=step: run(step) for name, step in steps.items()}
    calls[f"sare_tf, Keras on {FLAGS.backend}"] = fit
    images = count * shape[0]
    torch_reference.compare(
        calls,
        repeats=FLAGS.repeats,
        images=images,
        flops=images
        * torch_reference.convolution_flops(
            FLAGS.height, FLAGS.width, trained=True
        ),
        device=device,
        dtype=getattr(torch, FLAGS.dtype),
    )


if __name__ == "__main__":
    app.run(main)
