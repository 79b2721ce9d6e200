"""Size, orientation and number of compressed texts of a PNG, read in a graph.

Only standard ops read the file, so that an exported graph can. They go from
chunk to chunk by their lengths. A chunk is its length and name, int32 [2].

Source: PNG specification, sections 5.2, 5.3, 11.2.2 and 11.3.4.5 (eXIf).
"""

import tensorflow as tf

from sare_tf.dataset import exif_orientation
from sare_tf.dataset.image_limits import UNCOUNTED

# First bytes of a file.
PNG = b"\x89PNG\r\n\x1a\n"

# Chunks that are read. Ours: a PNG of 130 MB has as many.
MOST_CHUNKS = 1 << 14

_EXIF_CHUNK, _ZIPPED_TEXT, _ANY_TEXT, _LAST_CHUNK = (
    int.from_bytes(name, "big") for name in (b"eXIf", b"zTXt", b"iTXt", b"IEND")
)
# Length and name before the data of a chunk, and a checksum after it.
_BEFORE_DATA, _AROUND_DATA = 8, 12


def read(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the header of a PNG, string [], as `image_header.Header` has it.

    Returns:
        Height, width, orientation, and number of texts that may be compressed,
        int32 [4].
    """
    head = tf.strings.join([tf.strings.substr(image_bytes, 0, 24), 24 * "\0"])
    # Width and height; from 2^31 on, which the format excludes, negative.
    size = tf.maximum(_integers(head, 16)[::-1], 0)
    num_bytes = tf.strings.length(image_bytes)

    def step(count, at, name, exif, texts):
        del name
        data_bytes, name = tf.unstack(_integers(image_bytes, at))
        is_text = (name == _ZIPPED_TEXT) | (name == _ANY_TEXT)
        return (
            count + 1,
            at + _AROUND_DATA + tf.clip_by_value(data_bytes, 0, num_bytes),
            name,
            tf.where((name == _EXIF_CHUNK) & (exif == 0), at, exif),
            texts + tf.cast(is_text, tf.int32),
        )

    count, _, _, exif, texts = tf.while_loop(
        lambda count, at, name, *_: (
            (name != _LAST_CHUNK)
            & (at <= num_bytes - _AROUND_DATA)
            & (count < MOST_CHUNKS)
        ),
        step,
        tuple(map(tf.constant, (0, len(PNG), 0, 0, 0))),
    )
    orientation = tf.cond(
        exif > 0, lambda: _of_exif_chunk(image_bytes, exif), lambda: 1
    )
    texts = tf.where(count == MOST_CHUNKS, UNCOUNTED, tf.maximum(texts, 1))
    return tf.concat([size, [orientation, texts]], axis=0)


def _of_exif_chunk(image_bytes: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in a chunk, int32 []."""
    data_bytes = tf.maximum(_integers(image_bytes, start)[0], 0)
    return exif_orientation.parse(
        tf.strings.substr(image_bytes, start + _BEFORE_DATA, data_bytes)
    )


def _integers(image_bytes: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the two numbers of four bytes from `start` on, int32 [2]."""
    raw = tf.strings.substr(image_bytes, start, 8)
    numbers = tf.io.decode_raw(raw, tf.int32, little_endian=False)
    return tf.ensure_shape(numbers, [2])
