"""Compares the memory that `train --dry_run` estimates with that of steps.

    python -m benchmarks.training_memory
    python -m benchmarks.training_memory --networks=vgg16 --scale=2

Every row is a process of its own, which trains on one tuple of random images by
Keras's `fit`, with AdamW. "measured" is the peak of a step, VmHWM, above what
the process holds after a step with three images, when freed memory was given
back: what the libraries, the graph, the weights and the state of the optimizer
take is in both. "estimated" is the sum of the lines of --dry_run but for these
two. Heaps keep freed memory during a step, too, so that a second measurement
may differ by some percent. oneDNN is off: its allocator returns no memory, so
the step with three images would hide as much of the other.
"""

import os

import numpy as np
from absl import app, flags

from benchmarks import measure

FLAGS = flags.FLAGS
flags.DEFINE_list(
    "networks",
    ["vgg16", "mobilenet_v2", "dinov2_vits14", "dinov2_vitb14"],
    "Backbones.",
)
flags.DEFINE_float("scale", 1.0, "Factor on the images of a step.", 0.0)

_FIRST = 3
# Backbone: rows and columns of an image, images of a step, first layer of the
# whole network, and of its end.
_SETTINGS = {
    "vgg16": (224, 12, "block1_conv1", "block5"),
    "mobilenet_v2": (224, 36, "features_0_0", "features_10"),
    "dinov2_vits14": (224, 24, "embedding", "block8"),
    "dinov2_vitb14": (224, 12, "embedding", "block8"),
}
_FORMS = {
    "all": (0, {}),
    "all, recomputed": (0, {"recompute_blocks": True}),
    "from a block": (1, {}),
    "from a block, recomputed": (1, {"recompute_blocks": True}),
    "from a block, cached": (1, {"cache_frozen": True}),
}


def measured(name: str, form: str, images: int) -> tuple[int, int, int]:
    """Measures a step, in a process of its own.

    Returns:
        Bytes: estimated and measured of a step, and those of the weights and
        of the state of the optimizer.
    """
    import keras
    import tensorflow as tf

    from sare_tf.training import compiled_network, memory_estimate
    from sare_tf.training.options import TrainingOptions

    keras.utils.set_random_seed(0)
    size, _, *starts = _SETTINGS[name]
    number, settings = _FORMS[form]
    options = TrainingOptions(
        records="records",
        checkpoints="checkpoints",
        backbone=name,
        aggregation="gem",
        image_height=size,
        image_width=size,
        optimizer="adam",
        tuples_per_batch=1,
        num_negatives=images - 2,
        train_from=starts[number],
        **settings,
    )
    network = compiled_network.build(None, options)
    embedder = network.get_layer("embedder")
    needed = memory_estimate.memory(
        embedder,
        options,
        memory_estimate.Workload("", "", steps=1, images_per_step=images),
    )
    kept = needed.pop("weights") + needed.pop("state of the optimizer")
    trained = compiled_network.over(
        network, compiled_network.form_of(embedder, options), options
    )
    spec = (None, None, *trained.get_layer("embedder").input_shape[1:])
    dtype = tf.float32 if settings.get("cache_frozen") else tf.uint8

    def batch_of(count):
        rng = np.random.default_rng(0)
        numbers = rng.integers(0, 256, (1, count, *spec[2:]), np.uint8)
        batch = numbers.astype(dtype.as_numpy_dtype), np.zeros(1, np.float32)
        return tf.data.Dataset.from_generator(
            lambda: iter([batch]),
            output_signature=(
                tf.TensorSpec(spec, dtype),
                tf.TensorSpec((None,), tf.float32),
            ),
        )

    def fit(count):
        trained.fit(batch_of(count), steps_per_epoch=1, verbose=0)

    fit(_FIRST)
    measure.return_freed()
    before = measure.resident_bytes()
    measure.reset_peak()
    fit(images)
    return sum(needed.values()), measure.peak_bytes() - before, kept


def main(argv):
    del argv
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # for the processes
    print(
        "| network | trained | images | weights, state MiB | estimated MiB | "
        "measured MiB | estimated / measured |\n"
        "|---|---|---:|---:|---:|---:|---:|"
    )
    for name in FLAGS.networks:
        images = round(_SETTINGS[name][1] * FLAGS.scale)
        for form in _FORMS:
            estimate, peak, kept = (
                size / measure.MEBIBYTE
                for size in measure.in_a_process(measured, name, form, images)
            )
            print(
                f"| {name} | {form} | {images} | {kept:,.0f} | {estimate:,.0f} "
                f"| {peak:,.0f} | {estimate / peak:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
