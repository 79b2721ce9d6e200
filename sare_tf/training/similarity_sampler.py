"""Records for the sampler of TensorFlow Similarity."""

from collections.abc import Callable

import tensorflow as tf

from sare_tf.dataset import image_decoding


def similarity_example(
    *, height: int, width: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """How TensorFlow Similarity's `TFRecordDatasetSampler` reads records.

    The sampler takes `example_per_class` images at a time from each shard,
    which it expects to be of one place. Images of a place lie together in
    records, so that holds where the numbers of images of all places are
    multiples of it; elsewhere a place's remainder comes with the next place's
    first images. Labels stay right either way.

    Args:
        height: rows of an image.
        width: columns of an image.

    Returns:
        Function of a serialised Example, string [], that returns the image,
        uint8 [height, width, 3], and a label, int64 []: a hash of its place,
        below 2 ** 24, as Keras casts labels to float32. Two places share one
        with a probability of 6e-8.

    Example:

    ```python
    batches = tensorflow_similarity.samplers.TFRecordDatasetSampler(
        "runs/own/records",
        similarity_sampler.similarity_example(height=240, width=320),
        example_per_class=4,
        batch_size=64,
        shard_suffix="train-*.tfrecord",
    )
    ```
    """
    names = ("image/encoded", "image/id", "image/place")
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}

    def read(serialised: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(serialised, features)
        place, image_id = example["image/place"], example["image/id"]
        # An image with neither place nor position is a place of its own.
        place = tf.where(place == "", image_id, place)
        image = image_decoding.load(
            example["image/encoded"], height=height, width=width
        )
        return image, tf.strings.to_hash_bucket_fast(place, 1 << 24)

    return read
