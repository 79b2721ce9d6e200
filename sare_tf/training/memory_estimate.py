"""Estimates of what a training run will do and need, before it begins.

Sizes are in bytes, float32 unless stated otherwise. They cover what the run
keeps and its largest step; the libraries' own memory, several hundred MiB, and
the convolutions' work spaces on a GPU come on top.
"""

import dataclasses

import keras
import numpy as np

from sare_tf.training import hard_negatives
from sare_tf.training.options import TrainingOptions

_FLOAT32 = 4
# Arrays of the optimizer per trained weight.
_SLOTS = {"sgd": 1, "adam": 2}
# The gradient of an output beside that of the output before it.
_GRADIENTS_AT_A_TIME = 2


@dataclasses.dataclass(frozen=True)
class Workload:
    """The amount of work of an epoch.

    Attributes:
        epoch: the images and steps of an epoch, in words.
        validation: the images of validation, in words.
        steps: steps of an epoch.
        images_per_step: images of a step, of all replicas.
        queries: queries of the longest round, whose descriptors are kept; 0
            without mining.
        database: images whose descriptors are kept; 0 without mining.
        places: places that the loss has weights of; 0 without such weights.
    """

    epoch: str
    validation: str
    steps: int
    images_per_step: int
    queries: int = 0
    database: int = 0
    places: int = 0


def checkpoint_bytes(network: keras.Model) -> int:
    """Estimates the size of an epoch's folder.

    Args:
        network: compiled, with an optimizer that was built.
    """
    variables = [*network.weights, *network.optimizer.variables]
    # Beside them a description of the layers.
    return sum(_count(v.shape) * _FLOAT32 for v in variables) + 2**20


def parameters(embedder: keras.Model) -> tuple[int, int]:
    """Counts the weights that are trained and those that are frozen."""
    return (
        sum(_count(weight.shape) for weight in embedder.trainable_weights),
        sum(_count(weight.shape) for weight in embedder.non_trainable_weights),
    )


def describe(
    embedder: keras.Model, options: TrainingOptions, workload: Workload
) -> str:
    """Describes in lines what a run will do and need.

    Args:
        embedder: a model of `build_embedder`.
        options: options of training.
        workload: the work of an epoch.
    """
    trained, frozen = parameters(embedder)
    needed = memory(embedder, options, workload)
    needed["together"] = sum(needed.values())
    return "\n".join(
        [
            f"  an epoch       {workload.epoch}",
            f"  epochs         {options.epochs}, about "
            f"{options.epochs * workload.steps:,} steps",
            f"  validation     {workload.validation}",
            f"  parameters     {trained:,} trained, {frozen:,} frozen; "
            f"descriptors of {embedder.output_shape[-1]:,} numbers",
            "  memory, about",
            *[
                f"    {size / 2**20:11,.1f} MiB  {name}"
                for name, size in needed.items()
            ],
        ]
    )


def memory(
    embedder: keras.Model, options: TrainingOptions, workload: Workload
) -> dict[str, int]:
    """Estimates the memory that a run needs, by its purpose.

    Args:
        embedder: a model of `build_embedder`.
        options: options of training.
        workload: the work of an epoch.

    Returns:
        Purpose to bytes. Purposes that begin with "mining" are in main memory,
        the others on the device.
    """
    trained, frozen = parameters(embedder)
    slots = _SLOTS[options.optimizer] + bool(options.averaging_momentum)
    starts = 0
    if options.l2_to_start:
        starts, _ = parameters(embedder.get_layer("backbone"))
    pixels = options.image_height * options.image_width * 3
    number = 2 if options.precision == "mixed_bfloat16" else _FLOAT32
    images = workload.images_per_step
    needed = {
        "weights": (trained + frozen) * _FLOAT32,
        "gradients of the weights": trained * _FLOAT32,
        "state of the optimizer": (trained * slots + starts) * _FLOAT32,
        # As bytes and as numbers.
        "images of a step": images * pixels * (1 + _FLOAT32),
        "activations of a step": images
        * number
        * _kept_numbers(embedder, options),
    }
    if workload.places:
        weights = workload.places * embedder.output_shape[-1]
        needed["weights of the loss, with gradient and state"] = (
            weights * (2 + slots) * _FLOAT32
        )
    database, queries = workload.database, workload.queries
    if database:
        length = embedder.output_shape[-1]
        size = np.dtype(options.cache_dtype).itemsize
        block = min(hard_negatives.QUERY_BLOCK, queries)
        needed |= {
            "mining: descriptors": (queries + database) * length * size,
            "mining: distances": block * database * _FLOAT32,
        }
    return needed


def _kept_numbers(embedder: keras.Model, options: TrainingOptions) -> int:
    """Counts the numbers per image that a step holds for its gradients."""
    kept, below, largest = 0, [0], 0
    images = keras.KerasTensor(
        (1, options.image_height, options.image_width, 3), "float32"
    )
    for layer, output in _outputs(embedder, images):
        count = _count(output.shape)
        largest = max(largest, count)
        if kept or layer.trainable_weights:
            kept += count
        else:
            below.append(count)
    # Before the first trained layer, an output goes when the next is there;
    # the last one is the input of that layer.
    passing = max(a + b for a, b in zip(below, [*below[1:], 0], strict=True))
    return max(passing, kept + below[-1] + _GRADIENTS_AT_A_TIME * largest)


def _outputs(
    network: keras.Model, images: keras.KerasTensor
) -> list[tuple[keras.layers.Layer, keras.KerasTensor]]:
    """Returns the layers of a network in order, each with its output."""
    layers = [
        layer
        for layer in network.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    try:
        if not any(isinstance(layer, keras.Model) for layer in layers):
            graph = keras.Model(
                network.inputs, [each.output for each in layers]
            )
            outputs = graph.compute_output_spec(images)
            return list(zip(layers, outputs, strict=True))
        # A chain, such as preprocessing, backbone and aggregation.
        outputs, output = [], images
        for layer in layers:
            if isinstance(layer, keras.Model):
                outputs += _outputs(layer, output)
            else:
                outputs.append((layer, layer.compute_output_spec(output)))
            output = outputs[-1][1]
        return outputs
    except (AttributeError, TypeError, ValueError):
        # Of a subclassed model, a shared layer or a branch of models, Keras
        # does not say what is inside.
        return [(network, network.compute_output_spec(images))]


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
