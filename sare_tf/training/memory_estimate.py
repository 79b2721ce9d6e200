"""What a training run will do and need, before it begins.

Sizes are in bytes, float32 where nothing else is said. They are of what the
run keeps and of the largest step; the libraries' own memory, several hundred
MiB, comes on top, and so do the convolutions' work spaces on a GPU.
"""

from collections.abc import Iterator

import keras
import numpy as np

from sare_tf.training import hard_negatives
from sare_tf.training.options import TrainingOptions

_FLOAT32 = 4
# Arrays of the optimizer per trained weight.
_SLOTS = {"sgd": 1, "adam": 2}
# The gradient of an output beside that of the output before it.
_GRADIENTS_AT_A_TIME = 2


def checkpoint_bytes(network: keras.Model) -> int:
    """About the size of an epoch's folder.

    Args:
        network: compiled, with an optimizer that was built.
    """
    variables = [*network.weights, *network.optimizer.variables]
    # Beside them a description of the layers.
    return sum(_count(v.shape) * _FLOAT32 for v in variables) + 2**20


def parameters(embedder: keras.Model) -> tuple[int, int]:
    """Counts of the numbers that are trained and that are frozen."""
    return (
        sum(_count(weight.shape) for weight in embedder.trainable_weights),
        sum(_count(weight.shape) for weight in embedder.non_trainable_weights),
    )


def describe(
    embedder: keras.Model,
    options: TrainingOptions,
    *,
    epoch: str,
    steps: int,
    validation: str,
    images_per_step: int,
    queries: int,
    database: int,
) -> str:
    """Says what a run will do and need.

    Args:
        embedder: see `memory`.
        options: see `memory`.
        epoch: what an epoch goes over.
        steps: of an epoch.
        validation: what it goes over.
        images_per_step: see `memory`.
        queries: see `memory`.
        database: see `memory`.

    Returns:
        Lines.
    """
    trained, frozen = parameters(embedder)
    needed = memory(
        embedder,
        options,
        images_per_step=images_per_step,
        queries=queries,
        database=database,
    )
    needed["together"] = sum(needed.values())
    return "\n".join(
        [
            f"  an epoch       {epoch}",
            f"  epochs         {options.epochs}, about "
            f"{options.epochs * steps:,} steps",
            f"  validation     {validation}",
            f"  parameters     {trained:,} trained, {frozen:,} frozen; "
            f"descriptors of {embedder.output_shape[-1]:,} numbers",
            "  memory, about",
            *[
                f"    {size / 2**20:11,.1f} MiB  {part}"
                for part, size in needed.items()
            ],
        ]
    )


def memory(
    embedder: keras.Model,
    options: TrainingOptions,
    *,
    images_per_step: int,
    queries: int,
    database: int,
) -> dict[str, int]:
    """Estimates the parts of the memory that a run needs.

    Args:
        embedder: a model of `build_embedder`.
        options: of the training.
        images_per_step: of all replicas.
        queries: of the longest round, whose descriptors are kept; 0 without
            mining.
        database: images whose descriptors are kept; 0 without mining.

    Returns:
        Part to bytes; parts that begin with "mining" lie in the main memory,
        the others on the device.
    """
    trained, frozen = parameters(embedder)
    slots = _SLOTS[options.optimizer] + bool(options.averaging_momentum)
    pixels = options.image_height * options.image_width * 3
    number = 2 if options.precision == "mixed_bfloat16" else _FLOAT32
    needed = {
        "weights": (trained + frozen) * _FLOAT32,
        "gradients of the weights": trained * _FLOAT32,
        "state of the optimizer": trained * slots * _FLOAT32,
        # As bytes and as numbers.
        "images of a step": images_per_step * pixels * (1 + _FLOAT32),
        "activations of a step": images_per_step
        * number
        * _kept_numbers(embedder, options),
    }
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
    """Numbers per image that a step holds for its gradients."""
    kept, below, largest = 0, [0], 0
    for layer, count in _outputs(embedder, options):
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
    embedder: keras.Model, options: TrainingOptions
) -> Iterator[tuple[keras.layers.Layer, int]]:
    """Layers in their order, with the numbers that each makes of an image."""
    made = keras.KerasTensor(
        (1, options.image_height, options.image_width, 3), "float32"
    )
    for layer in embedder.layers[1:]:  # after the input
        if isinstance(layer, keras.Model):
            inner = layer.layers[1:]
            outputs = keras.Model(
                layer.input, [each.output for each in inner]
            ).compute_output_spec(made)
            for each, output in zip(inner, outputs, strict=True):
                yield each, _count(output.shape)
            made = outputs[-1]
        else:
            made = layer.compute_output_spec(made)
            yield layer, _count(made.shape)


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
