"""Reads and applies the orientation in a photograph's EXIF header, in a graph.

A telephone stores the pixels as its sensor has them, and notes how it was held.
Only standard ops read the note, so that an exported graph can. Orientations are
those of EXIF, 1 to 8; 1 is upright. What XMP says (tiff:Orientation) does not
count, as in browsers: editors write it beside pixels that they have turned.

Source: CIPA DC-008 (EXIF 2.3), sections 4.5 and 4.6.4, tag Orientation; TIFF
6.0, section 2.
"""

import tensorflow as tf

_TAG = 0x0112
# Types of a number of two and of four bytes, without and with sign. EXIF has
# the first one; some telephones write the second one.
_SHORT, _LONG, _SIGNED_SHORT, _SIGNED_LONG = 3, 4, 8, 9
# An entry of a directory: tag, type, count and value, of 2, 2, 4, 4 bytes.
_ENTRY_BYTES = 12


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

    def numbers(start: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Returns numbers of two bytes, int32 [count]."""
        raw = tf.strings.substr(padded, start, 2 * count)
        little, big = (
            tf.io.decode_raw(raw, tf.uint16, little_endian=is_first)
            for is_first in (True, False)
        )
        return tf.cast(tf.where(is_little, little, big), tf.int32)

    def long(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """Returns the number of two; negative from 2^31 on."""
        return tf.where(
            is_little, 65536 * second + first, 65536 * first + second
        )

    directory = long(*tf.unstack(numbers(4, 2), 2))
    is_valid = (is_little | (order == b"MM\0*")) & (directory >= 0)
    directory = tf.where(is_valid, tf.minimum(directory, num_bytes), num_bytes)
    entries = directory + 2
    count = tf.minimum(
        numbers(directory, 1)[0], (num_bytes - entries) // _ENTRY_BYTES
    )
    count = tf.maximum(count, 0)
    table = tf.reshape(numbers(entries, 6 * count), (-1, 6))
    tag, kind, *halves, first, second = tf.unstack(table, axis=1)
    how_many = long(*halves)
    is_long = (kind == _LONG) | (kind == _SIGNED_LONG)
    is_short = (kind == _SHORT) | (kind == _SIGNED_SHORT)
    value = tf.where(is_long, long(first, second), first)
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
