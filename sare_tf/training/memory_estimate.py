"""Estimates of what a training run will do and need, before it begins.

Sizes are in bytes, float32 unless stated otherwise. They cover what the run
keeps and its largest step. On top come the libraries' own memory, several
hundred MiB, the work spaces of convolutions on a GPU, and what heaps keep of
freed memory. `benchmarks.training_memory` compares them with what steps take.
"""

import dataclasses
import os

import keras
import numpy as np

from sare_tf.training import (
    compiled_network,
    hard_negatives,
    step_memory,
)
from sare_tf.training.options import TrainingOptions

_FLOAT32 = 4
# Arrays of the optimizer per trained weight.
_SLOTS = {"sgd": 1, "adam": 2}
# Arrays per trained weight that TensorFlow computes when a step begins, as they
# need no gradient, and keeps until the weights are updated: the decay, and the
# share of the momentum that is kept.
_AHEAD = {"sgd": 2, "adam": 1}


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
    ahead = _AHEAD[options.optimizer] + bool(options.averaging_momentum)
    starts = 0
    if options.l2_to_start:
        starts, _ = parameters(embedder.get_layer("backbone"))
    images = workload.images_per_step
    form = compiled_network.form_of(embedder, options)
    # As bytes and as numbers.
    of_image = _count(form.input_shape[1:]) * (1 + _FLOAT32)
    if options.cache_frozen:
        of_image = _count(form.input_shape[1:]) * _FLOAT32
    needed = {
        "weights": (trained + frozen) * _FLOAT32,
        "state of the optimizer": (trained * slots + starts) * _FLOAT32,
        "decay and momentum of a step": trained * ahead * _FLOAT32,
        "images of a step": images * of_image,
        "activations and gradients of a step": max(
            step_memory.peak_bytes(
                form,
                options.chunk_images or images,
                path_draws=options.path_draws,
            ),
            _updating_bytes(embedder),
        ),
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


def _updating_bytes(embedder: keras.Model) -> int:
    """Returns the bytes of all gradients while weights are updated.

    As many weights as there are cores are updated at a time. Each takes two
    arrays beside its gradient.
    """
    counts = sorted(
        (_count(weight.shape) for weight in embedder.trainable_weights),
        reverse=True,
    )
    together = sum(counts[: os.cpu_count()])
    return (sum(counts) + 2 * together) * _FLOAT32


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
