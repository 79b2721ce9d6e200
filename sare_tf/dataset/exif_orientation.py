"""Reads and applies the orientation in a photograph's EXIF header, in a graph.

A telephone stores the pixels as its sensor has them, and notes how it was held.
Only standard ops read the note, so that an exported graph can. Orientations are
those of EXIF, 1 to 8; 1 is upright.

Source: CIPA DC-008 (EXIF 2.3), sections 4.5 and 4.6.4, tag Orientation; TIFF
6.0, section 2.
"""

import tensorflow as tf

# The header is in one of the first segments of a JPEG, its entry near the
# header's start.
_HEAD_BYTES = 1 << 12
# \C is any byte.
_HAS_EXIF = r"\C*Exif\x00\x00\C*"
_TAG = 0x0112
_SHORT = 3
# Entries of a directory that are read: cameras write about a dozen. Ours.
_MOST_ENTRIES = 64


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def read(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the orientation of a JPEG, string [] -> int32 []; 1 if it has none.

    Bytes of any kind are accepted: an invalid header counts as none.
    """
    head = tf.strings.substr(image_bytes, 0, _HEAD_BYTES)
    # Most datasets have no such header, which one pass over the bytes shows.
    return tf.cond(
        tf.strings.regex_full_match(head, _HAS_EXIF),
        lambda: _parse(tf.io.decode_raw(head, tf.uint8)),
        lambda: 1,
    )


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


# Inlined into the condition, its ops would cost time even where it is false.
@tf.function(
    input_signature=[tf.TensorSpec([None], tf.uint8)],
    experimental_attributes={"_noinline": True},
)
def _parse(head: tf.Tensor) -> tf.Tensor:
    """Reads the orientation in the first bytes, uint8 [N] -> int32 []."""
    last = tf.size(head) - 1

    def pair(at: tf.Tensor) -> tf.Tensor:
        """Returns the number in two bytes, the first of which is the higher."""
        places = tf.clip_by_value(tf.stack([at, at + 1], axis=-1), 0, last)
        values = tf.cast(tf.gather(head, places), tf.int32)
        return 256 * values[..., 0] + values[..., 1]

    def is_exif(at: tf.Tensor) -> tf.Tensor:
        marker, name = pair(at), (pair(at + 4), pair(at + 6))
        return (marker == 0xFFE1) & (name[0] == 0x4578) & (name[1] == 0x6966)

    def is_before(at: tf.Tensor) -> tf.Tensor:
        """Returns whether a segment of another application is here."""
        marker = pair(at)
        skipped = (marker // 16 == 0xFFE) | (marker == 0xFFFE)
        return skipped & ~is_exif(at) & (at < last)

    # A segment is its marker, its length without that, and what it holds.
    (segment,) = tf.while_loop(
        is_before, lambda at: (at + 2 + pair(at + 2),), (tf.constant(2),)
    )
    start = segment + 10  # of the TIFF header, from which offsets count
    little_endian = pair(start) == 0x4949

    def short(at: tf.Tensor) -> tf.Tensor:
        value = pair(at)
        swapped = 256 * (value % 256) + value // 256
        return tf.where(little_endian, swapped, value)

    first, second = short(start + 4), short(start + 6)
    low = tf.where(little_endian, first, second)
    offset = 65536 * (first + second - low) + low
    directory = start + offset
    count = tf.minimum(short(directory), _MOST_ENTRIES)
    # Of 12 bytes: tag, type, count, value.
    entries = directory + 2 + 12 * tf.range(count)
    wanted = (short(entries) == _TAG) & (short(entries + 2) == _SHORT)
    value = tf.reduce_max(tf.where(wanted, short(entries + 8), 0))
    usable = is_exif(segment) & (value >= 1) & (value <= 8)
    return tf.where(usable, value, 1)


def _one_of(value: tf.Tensor, numbers: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(numbers))
