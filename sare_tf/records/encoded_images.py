"""Datasets of the encoded images of records, on disk or in object storage."""

from collections.abc import Iterator

import tensorflow as tf

from sare_tf.records import frames, range_reading
from sare_tf.records.image_places import ImagePlaces
from sare_tf.runtime import dataset_errors, remote_files, tfdata_threads

_FEATURES = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
_MESSAGE = "the image is not the one that was built"


def parse(serialised: tf.Tensor) -> tf.Tensor:
    """Returns the encoded image of an Example, string [] -> string []."""
    return tf.io.parse_single_example(serialised, _FEATURES)["image/encoded"]


def record_at(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Reads one record of a file by its byte offset, within a graph.

    Args:
        path: path of the file, string [].
        offset: offset of the record, int64 [].

    Returns:
        Its data, string []. tf.errors.DataLossError is raised where its
        checksums do not hold.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        # Unbuffered: the rest of a buffer would be read in vain.
        buffer_size=0,
        byte_offsets=offset[None],
    )
    element = tf.TensorSpec([], tf.string)
    record = tf.data.experimental.from_variant(variant, element)
    return record.take(1).get_single_element()


def dataset(places: ImagePlaces) -> tf.data.Dataset:
    """Makes a dataset of images in their order, see `Records.encoded_dataset`.

    Returns:
        Dataset of B strings.
    """
    if any(map(remote_files.is_remote, places.paths)):
        return _remote(places)
    shards = tf.constant(places.paths, tf.string)

    @tf.autograph.experimental.do_not_convert
    def read(
        shard: tf.Tensor, offset: tf.Tensor, digest: tf.Tensor
    ) -> tf.Tensor:
        encoded = parse(record_at(shards[shard], offset))
        # TensorFlow has no op for it. Decoding takes 100 times as long.
        own = tf.numpy_function(frames.short_digest, [encoded], tf.int64)
        return _refused_unless(own == digest, encoded)

    # By map, because flat_map reads one record after the other.
    where = tf.data.Dataset.from_tensor_slices(
        (places.file, places.offset, places.digest)
    )
    return tfdata_threads.fixed(
        where.map(read, num_parallel_calls=tfdata_threads.THREADS)
    )


def _remote(places: ImagePlaces) -> tf.data.Dataset:
    def windows() -> Iterator[tuple[list[bytes], list[bool]]]:
        for images in range_reading.read(places):
            is_whole = [image is not None for image in images]
            yield [image or b"" for image in images], is_whole

    element = (
        tf.TensorSpec([None], tf.string),
        tf.TensorSpec([None], tf.bool),
    )
    # Assertions are made one by one, so that the dataset has a next image.
    return tfdata_threads.fixed(
        dataset_errors.generated(windows, element)
        .unbatch()
        .apply(tf.data.experimental.assert_cardinality(len(places)))
        .map(
            lambda encoded, is_whole: _refused_unless(is_whole, encoded),
            num_parallel_calls=tfdata_threads.THREADS,
        )
    )


def _refused_unless(is_whole: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([tf.debugging.Assert(is_whole, [_MESSAGE])]):
        return tf.identity(encoded)
