"""Reads and applies the orientation in a photograph's EXIF header, in a graph.

A telephone stores the pixels as its sensor has them, and notes how it was held.
Only standard ops read the note, so that an exported graph can. Orientations are
those of EXIF, 1 to 8; 1 is upright. What XMP says (tiff:Orientation) does not
count, as in browsers: editors write it beside pixels that they have turned.

Source: CIPA DC-008 (EXIF 2.3), sections 4.5 and 4.6.4, tag Orientation; TIFF
6.0, section 2.
"""

import numpy as np
import tensorflow as tf

_TAG = 0x0112
# Types of a number of two and of four bytes, without and with sign. EXIF has
# the first one; some telephones write the second one.
_SHORT, _LONG, _SIGNED_SHORT, _SIGNED_LONG = 3, 4, 8, 9
# An entry of a directory: tag, type, count and value, of 2, 2, 4, 4 bytes.
_ENTRY_BYTES = 12
# Bytes of an entry that its tag, type, count, and value as a number of four and
# of two bytes are made of: [first, end).
_OF_NUMBERS = ((0, 2), (2, 4), (4, 8), (8, 12), (8, 10))


def _weights(*, is_little: bool) -> np.ndarray:
    """Makes what turns bytes of an entry into numbers, int32 [12, 5].

    Numbers of four bytes become negative from 2^31 on.
    """
    weights = np.zeros((_ENTRY_BYTES, len(_OF_NUMBERS)), np.int32)
    for number, (first, end) in enumerate(_OF_NUMBERS):
        powers = 256 ** np.arange(end - first)
        weights[first:end, number] = powers if is_little else powers[::-1]
    return weights


_LITTLE, _BIG = _weights(is_little=True), _weights(is_little=False)


# Inlined into a condition, its ops would cost time even where it is false.
@tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    experimental_attributes={"_noinline": True},
    autograph=False,
)
def parse(tiff: tf.Tensor) -> tf.Tensor:
    """Reads the orientation in an EXIF header, string [] -> int32 [].

    Args:
        tiff: the header from its byte order on, and anything after it.

    Returns:
        1 to 8; 1 for a header that is damaged, or does not say.
    """
    num_bytes = tf.strings.length(tiff)
    padded = tf.strings.join([tiff, _ENTRY_BYTES * "\0"])
    order = tf.strings.substr(padded, 0, 4)
    is_little = order == b"II*\0"
    offset = tf.strings.substr(padded, 4, 4)
    # Negative from 2^31 on.
    directory = tf.where(
        is_little,
        tf.io.decode_raw(offset, tf.int32, little_endian=True),
        tf.io.decode_raw(offset, tf.int32, little_endian=False),
    )
    directory = tf.reshape(directory, [])
    is_valid = (is_little | (order == b"MM\0*")) & (directory >= 0)
    directory = tf.where(is_valid, tf.minimum(directory, num_bytes), num_bytes)
    values = tf.io.decode_raw(
        tf.strings.substr(padded, directory, num_bytes + 2), tf.uint8
    )
    weights = tf.where(is_little, _LITTLE, _BIG)
    count = tf.reduce_sum(tf.cast(values[:2], tf.int32) * weights[:2, 0])
    most = (num_bytes - directory - 2) // _ENTRY_BYTES
    count = tf.maximum(tf.minimum(count, most), 0)
    entries = tf.reshape(values[2 : 2 + _ENTRY_BYTES * count], (-1, 12))
    tag, kind, how_many, long, short = tf.unstack(
        tf.cast(entries, tf.int32) @ weights, axis=1
    )
    is_long = (kind == _LONG) | (kind == _SIGNED_LONG)
    is_short = (kind == _SHORT) | (kind == _SIGNED_SHORT)
    value = tf.where(is_long, long, short)
    # More numbers than an entry has room for are elsewhere.
    is_here = tf.where(is_long, how_many == 1, how_many <= 2)
    is_usable = is_here & (value >= 1) & (value <= 8)
    # The first entry counts, and one that says 1 comes after all.
    is_wanted = (tag == _TAG) & (is_long | is_short) & (how_many >= 1)
    chosen = tf.argmax(tf.concat([is_wanted, [True]], axis=0))
    values = tf.concat([tf.where(is_usable, value, 1), [1]], axis=0)
    return values[chosen]


def apply(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image upright.

    Args:
        image: [H, W, C].
        orientation: int32 [], 1 to 8.

    Returns:
        [H, W, C], or [W, H, C] for the orientations from 5 on.
    """

    def turn() -> tf.Tensor:
        turned = tf.cond(
            orientation >= 5,
            lambda: tf.transpose(image, (1, 0, 2)),
            lambda: image,
        )
        upside_down = _one_of(orientation, (3, 4, 7, 8))
        mirrored = _one_of(orientation, (2, 3, 6, 7))
        dims = tf.stack([upside_down, mirrored, False])
        return tf.raw_ops.Reverse(tensor=turned, dims=dims)

    return tf.cond(orientation > 1, turn, lambda: image)


def _one_of(value: tf.Tensor, numbers: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(numbers))
