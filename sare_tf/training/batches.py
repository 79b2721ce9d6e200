"""Batches of decoded images, and the draws that vary them in training.

Images are uint8 until they are on the device. Axis letters: R draws of an
image, H W C image.

A batch with draws is {"images": images, "draws": float32 [..., R]}: R uniform
numbers in 0..1 for each image, by which `Augmentation` varies it on the
device; "path_draws" are those of stochastic depth, see `drop_path`. The draws
depend only on the seed, the step and the position in the batch.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sare_tf.dataset import image_decoding
from sare_tf.model.registry import AUGMENTATION_DRAWS
from sare_tf.runtime import tfdata_threads
from sare_tf.training.options import TrainingOptions

# Made while the device is at work.
READY_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class AugmentationDraws:
    """Random numbers by which `Augmentation` varies the images of a dataset.

    Attributes:
        per_image: R, `Augmentation.num_draws`.
        same_in_group: give all images of a tuple, or of a place, the same
            numbers.
        seed: seed of the numbers.
        path_draws: further numbers of an image, for stochastic depth, which
            differ between all images.
    """

    per_image: int
    same_in_group: bool = False
    seed: int = 0
    path_draws: int = 0


def draws_of(
    options: TrainingOptions, *, seed: int
) -> AugmentationDraws | None:
    """Returns the draws of augmentation and stochastic depth; None: neither."""
    if not options.augment and not options.path_draws:
        return None
    return AugmentationDraws(
        sum(AUGMENTATION_DRAWS[effect] for effect in options.augment),
        options.augment_same,
        seed,
        options.path_draws,
    )


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """The images of a batch, and which of them one worker reads.

    Attributes:
        groups: tuples or places of the whole batch.
        images_per_group: images of one tuple or place; they stand together.
        part: (worker, workers): which of how many equal parts is read.
    """

    groups: int
    images_per_group: int
    part: tuple[int, int] = (0, 1)

    @property
    def own(self) -> slice:
        """The images of the part, among those of the whole batch."""
        return own_slice(self.part, self.groups * self.images_per_group)


def own_slice(part: tuple[int, int], size: int) -> slice:
    """Returns where the part (worker, workers) lies among `size` things."""
    worker, workers = part
    return slice(worker * size // workers, (worker + 1) * size // workers)


def decoded(
    encoded_images: tf.data.Dataset, *, height: int, width: int
) -> tf.data.Dataset:
    """Decodes images, string [], to uint8 [height, width, 3]."""
    return encoded_images.map(
        _loading(height, width), num_parallel_calls=tfdata_threads.THREADS
    )


@functools.cache
def _loading(height: int, width: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that is traced once, not for each dataset."""
    return tf.function(
        functools.partial(image_decoding.load, height=height, width=width),
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
    )


def with_targets(
    images: tf.data.Dataset,
    targets: tf.data.Dataset,
    *,
    shape: tuple[int, ...],
    layout: BatchLayout,
    draws: AugmentationDraws | None,
) -> tf.data.Dataset:
    """Makes batches of images with their targets, and with draws.

    Args:
        images: decoded images of the part, uint8 [H, W, 3].
        targets: targets of each batch.
        shape: shape of a batch's images before H W C.
        layout: layout of a batch.
        draws: draws of the augmentation; None for none.
    """

    @tf.autograph.experimental.do_not_convert
    def batch_with_draws(step: tf.Tensor, batch: tuple) -> tuple:
        images_of_batch, targets_of_batch = batch
        images_of_batch = tf.reshape(
            images_of_batch, (*shape, *images_of_batch.shape[1:])
        )
        if draws is None:
            return images_of_batch, targets_of_batch
        inputs = {"images": images_of_batch}
        if draws.per_image:
            numbers = _draw(draws, layout, step)[layout.own]
            inputs["draws"] = tf.reshape(numbers, (*shape, draws.per_image))
        if draws.path_draws:
            numbers = _path_draws(draws, layout, step)[layout.own]
            inputs["path_draws"] = tf.reshape(
                numbers, (*shape, draws.path_draws)
            )
        return inputs, targets_of_batch

    batches = images.batch(int(np.prod(shape)), drop_remainder=True)
    numbered = tf.data.Dataset.zip(batches, targets).enumerate()
    return numbered.map(batch_with_draws).prefetch(READY_BATCHES)


def _draw(
    draws: AugmentationDraws, layout: BatchLayout, step: tf.Tensor
) -> tf.Tensor:
    """Draws for the whole batch, [images, R]: equal for any number of parts."""
    images, count = layout.images_per_group, draws.per_image
    numbers = tf.random.stateless_uniform(
        (layout.groups, 1 if draws.same_in_group else images, count),
        tf.stack([tf.constant(draws.seed, tf.int64), step]),
    )
    numbers = tf.broadcast_to(numbers, (layout.groups, images, count))
    return tf.reshape(numbers, (-1, count))


def _path_draws(
    draws: AugmentationDraws, layout: BatchLayout, step: tf.Tensor
) -> tf.Tensor:
    """Draws for stochastic depth in the whole batch, [images, R]."""
    # Seeds of augmentation are below 2 ** 32.
    seed = tf.constant(draws.seed + (1 << 32), tf.int64)
    return tf.random.stateless_uniform(
        (layout.groups * layout.images_per_group, draws.path_draws),
        tf.stack([seed, step]),
    )
