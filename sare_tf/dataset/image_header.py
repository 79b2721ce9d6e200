"""Size, orientation and number of scans of an image, read in a graph.

Only standard ops read the file, so that an exported graph can. They go from
segment to segment as decoders do: by their lengths, over fill bytes and
whatever else lies between them. Bytes that look like a marker but lie within a
segment, or behind the end of the image, do not count.

A segment is a row of six numbers, int32: the second byte of its marker, its
length without the marker, and the 6 bytes that follow, as numbers of 1, 2, 2
and 1 bytes. Those of a frame are its precision, height, width and number of
components; the first of a scan is its number of components.

Source: ITU-T T.81, sections B.1.1 and B.2.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sare_tf.dataset import exif_orientation, png_header
from sare_tf.dataset.image_limits import UNCOUNTED
from sare_tf.dataset.png_header import PNG

# First bytes of a file. ITU-T T.81, section B.1.1: SOI, then another marker.
JPEG = b"\xff\xd8\xff"

# Blocks of a JPEG that are read, beside one per `_SCANS_BLOCK` of it. Ours: a
# header takes a few.
MOST_BLOCKS = 1 << 8

# Bytes of a block. Without metadata, the first scan begins in the first one.
_HEADER_BLOCK, _SCANS_BLOCK = 1 << 10, 1 << 16
_SEGMENT_BYTES = 10
# The bytes that each number of a segment is made of.
_OF_NUMBERS = ((1,), (2, 3), (4,), (5, 6), (7, 8), (9,))
_SOF0, _SOS, _EOI, _APP1 = 0xC0, 0xDA, 0xD9, 0xE1
_EXIF = (0x45, 0x7869, 0x6600, 0)  # "Exif\0\0"
# Second bytes of markers. Frames hold the size: table B.1 without DHT, JPG and
# DAC. The first ones, baseline and extended, may have a single scan.
_SEQUENTIAL = 0xC1
_FRAMES = tuple({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
# Those of a segment: not FF00 and TEM, RSTn and SOI, and fill.
_OF_SEGMENTS = (*range(0x02, 0xD0), *range(0xD9, 0xFF))
# Those before the only scan of most files: without APP1, which may hold EXIF.
_PLAIN = (0xC0, 0xC1, 0xC4, 0xDB, 0xDD, 0xE0, *range(0xE2, 0xF0), 0xFE)
_NO_SCAN = b"\0\0\xff\xda" + bytes(_SEGMENT_BYTES)
# The first segment of most files, of 16 bytes (JFIF 1.02), and where the next
# one starts.
_JFIF, _AFTER_JFIF = b"\xff\xe0\0\x10", 20
_MOST_FRONT = _AFTER_JFIF + _SEGMENT_BYTES
# \C is any byte.
_LOOKS_LIKE_EXIF = r"\C{6}(\C{18})?Exif\x00\x00\C*"


class Header(NamedTuple):
    """The header of an image; all int32 [].

    Attributes:
        height: rows as stored, before EXIF turns the image; 0 if unknown.
        width: columns as stored; 0 if unknown.
        orientation: 1 to 8, as in EXIF; 1 if there is no valid EXIF header.
        scans: how often the decoder goes over all pixels of a JPEG. Of a PNG,
            how many texts it has that may be compressed, at least 1: libpng
            inflates each to up to 8 MB. `UNCOUNTED` for too many to count.
    """

    height: tf.Tensor
    width: tf.Tensor
    orientation: tf.Tensor
    scans: tf.Tensor


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def read(image_bytes: tf.Tensor) -> Header:
    """Reads the header of a JPEG or PNG, string [].

    Bytes of any kind are accepted. Files that are neither have no size.
    """
    is_plain, plain = _first_look(image_bytes)
    header = tf.cond(is_plain, lambda: plain, lambda: _walk(image_bytes))
    return Header(*tf.unstack(header))


# Inlined into a condition, ops would cost time even where it is false.
_apart = tf.function(
    input_signature=[tf.TensorSpec([], tf.string)],
    experimental_attributes={"_noinline": True},
    autograph=False,
)


def _first_look(image_bytes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the header of a JPEG of one scan, as most files are.

    EXIF may be in the first segment, or in the second one after a JFIF header
    of the usual length. Nothing else may be in APP1, unless EXIF comes first.
    Each op takes time, so there are fewer of them than in a walk.

    Returns:
        Whether the file is such a JPEG, bool [], and its header, int32 [4].
    """
    head, orientation, passed_over = tf.cond(
        tf.strings.regex_full_match(
            tf.strings.substr(image_bytes, 0, _MOST_FRONT), _LOOKS_LIKE_EXIF
        ),
        lambda: _without_exif(image_bytes),
        lambda: (tf.strings.substr(image_bytes, 0, _HEADER_BLOCK), 1, _SOF0),
    )
    # Behind them a scan without components, so that there is a segment.
    values = tf.io.decode_raw(tf.strings.join([head, _NO_SCAN]), tf.uint8)
    # Segments after SOI, and what looks like one, [M].
    starts = tf.where(values[2 : 1 - _SEGMENT_BYTES] == 0xFF)
    segments = _numbers(
        tf.gather(values, starts + np.arange(2, _SEGMENT_BYTES + 2))
    )
    markers, lengths, *_ = tf.unstack(segments, axis=1)
    starts = tf.cast(starts[:, 0], tf.int32)
    # The last one is not: the first starts at 0.
    is_followed = starts + lengths + 2 == tf.roll(starts, -1, 0)
    is_plain = _is_one_of(markers, _PLAIN) | (markers == passed_over)
    last = tf.argmin(is_followed & is_plain)
    height, width, is_only_scan = _frame(segments[: last + 1])
    # A walk reads no segment of less than `_SEGMENT_BYTES`.
    behind = 2 + _SEGMENT_BYTES + len(_NO_SCAN)
    is_whole = starts[last] <= tf.size(values) - behind
    is_jpeg = tf.strings.substr(head, 0, len(JPEG)) == JPEG
    header = tf.stack([height, width, orientation, 1])
    return is_jpeg & is_only_scan & is_whole, header


@_apart
def _without_exif(
    image_bytes: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Takes EXIF out of a JPEG, at the two places where cameras write it.

    Returns:
        The first bytes without the segment, whose previews would fill them,
        string []; the orientation, and the second byte of markers that may
        follow: APP1, because the first EXIF counts. If there is no EXIF, they
        are as without it.
    """
    # Not zeros behind a short file: a name would end with them.
    front = tf.strings.join(
        [tf.strings.substr(image_bytes, 0, _MOST_FRONT), _MOST_FRONT * "-"]
    )
    is_behind = tf.strings.substr(front, 2, len(_JFIF)) == _JFIF
    start = tf.where(is_behind, _AFTER_JFIF, 2)
    segment = tf.strings.substr(front, start, _SEGMENT_BYTES)
    length = tf.io.decode_raw(
        tf.strings.substr(segment, 2, 2), tf.uint16, little_endian=False
    )
    num_bytes = tf.cast(tf.reshape(length, []), tf.int32) + 2
    is_exif = (
        (tf.strings.substr(segment, 0, 2) == b"\xff\xe1")
        & (tf.strings.substr(segment, 4, 6) == b"Exif\0\0")
        & (num_bytes > _SEGMENT_BYTES)
    )
    num_bytes = tf.where(is_exif, num_bytes, 0)
    exif = tf.strings.substr(
        image_bytes,
        tf.where(is_exif, start + _SEGMENT_BYTES, 0),
        tf.maximum(num_bytes - _SEGMENT_BYTES, 0),
    )
    after = tf.minimum(start + num_bytes, tf.strings.length(image_bytes))
    head = tf.strings.join(
        [
            tf.strings.substr(image_bytes, 0, start),
            tf.strings.substr(image_bytes, after, _HEADER_BLOCK),
        ]
    )
    # No bytes at all say 1.
    orientation = exif_orientation.parse(exif)
    return head, orientation, tf.where(is_exif, _APP1, _SOF0)


@_apart
def _walk(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the header of any file, int32 [4]."""
    return tf.cond(
        tf.strings.substr(image_bytes, 0, len(JPEG)) == JPEG,
        lambda: _of_jpeg(image_bytes),
        lambda: tf.cond(
            tf.strings.substr(image_bytes, 0, len(PNG)) == PNG,
            lambda: png_header.read(image_bytes),
            lambda: tf.constant(Header(0, 0, 1, 1)),
        ),
    )


def _of_jpeg(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads the header of a JPEG, int32 [4]."""
    _, starts, segments = _read_blocks(image_bytes, True)
    height, width, is_only_scan = _frame(segments)
    is_exif = (segments[:, 0] == _APP1) & tf.reduce_all(
        segments[:, 2:] == _EXIF, axis=1
    )
    exif = tf.argmax(is_exif)
    exif_bytes = segments[exif, 1] - (_SEGMENT_BYTES - 2)
    orientation = tf.cond(
        exif_bytes > 0,
        lambda: exif_orientation.parse(
            tf.strings.substr(
                image_bytes, starts[exif] + _SEGMENT_BYTES, exif_bytes
            )
        ),
        lambda: 1,
    )
    scans = tf.cond(
        is_only_scan,
        lambda: 1,
        lambda: _count_scans(
            tf.strings.substr(
                image_bytes, starts[-1], tf.strings.length(image_bytes)
            )
        ),
    )
    return tf.stack([height, width, orientation, scans])


def _count_scans(rest: tf.Tensor) -> tf.Tensor:
    """Counts the scans of a JPEG, given from the first one on, int32 []."""
    is_finished, _, segments = _read_blocks(rest, False)
    scans = tf.math.count_nonzero(segments[:, 0] == _SOS, dtype=tf.int32)
    return tf.where(is_finished, scans, UNCOUNTED)


@tf.function(
    input_signature=[
        tf.TensorSpec([], tf.string),
        tf.TensorSpec([], tf.bool),
    ],
    experimental_attributes={"_noinline": True},
    autograph=False,
)
def _read_blocks(
    image_bytes: tf.Tensor, is_header: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads block after block of a JPEG.

    Args:
        image_bytes: string [].
        is_header: whether to stop at the first scan, not at the image's end;
            bool [].

    Returns:
        Whether that took no more than the blocks there may be, bool []; starts
        and segments, int32 [S] and [S, 6]. Those of zeros, of which the first
        is one, are none.
    """
    num_bytes = tf.where(is_header, _HEADER_BLOCK, _SCANS_BLOCK)
    until = tf.stack([_EOI, tf.where(is_header, _SOS, _EOI)])
    length = tf.strings.length(image_bytes)
    last = length - _SEGMENT_BYTES
    most = MOST_BLOCKS + length // _SCANS_BLOCK

    def is_unfinished(steps, at, starts, segments):
        del starts
        is_over = tf.reduce_any(segments[-1, 0] == until)
        return (at <= last) & ~is_over & (steps < most)

    def step(steps, at, *before):
        at, *more = _read_block(image_bytes, at, num_bytes, until)
        return (
            steps + 1,
            at,
            *(tf.concat(pair, 0) for pair in zip(before, more, strict=True)),
        )

    width = len(_OF_NUMBERS)
    steps, _, starts, segments = tf.while_loop(
        is_unfinished,
        step,
        (
            tf.constant(0),
            tf.constant(0),
            tf.zeros(1, tf.int32),
            tf.zeros((1, width), tf.int32),
        ),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([]),
            tf.TensorShape([None]),
            tf.TensorShape([None, width]),
        ),
    )
    return steps < most, starts, segments


def _read_block(
    image_bytes: tf.Tensor,
    at: tf.Tensor,
    num_bytes: tf.Tensor,
    until: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads segments that follow each other and start in a block.

    Args:
        image_bytes: string [].
        at: where the block begins, int32 [].
        num_bytes: of the block, int32 [].
        until: second bytes of the markers to stop at, int32 [2].

    Returns:
        Where the next block begins, int32 []; starts and segments, int32 [S]
        and [S, 6], of which the first is of zeros.
    """
    block = tf.strings.substr(image_bytes, at, num_bytes)
    padded = tf.strings.join([block, _SEGMENT_BYTES * "\0"])
    values = tf.io.decode_raw(padded, tf.uint8)
    # What starts in the last bytes is left to the next block.
    left = 2 * _SEGMENT_BYTES - 1
    starts = tf.where(values[:-left] == 0xFF)
    markers = tf.cast(tf.gather(values, starts[:, 0] + 1), tf.int32)
    # All that may be segments, [M, 1].
    starts = tf.gather(
        starts, tf.where(_is_one_of(markers, _OF_SEGMENTS))[:, 0]
    )
    segments = _numbers(tf.gather(values, starts + np.arange(_SEGMENT_BYTES)))
    starts = tf.pad(tf.cast(starts[:, 0], tf.int32), [[1, 0]])
    segments = tf.pad(segments, [[1, 0], [0, 0]])
    markers, lengths, *_ = tf.unstack(segments, axis=1)
    ends = starts + lengths + 2
    # Anything may lie between a scan, or the zeros, and the next marker.
    is_free = _is_one_of(markers, (0, _SOS))
    is_followed = is_free[:-1] | (ends[:-1] == starts[1:])
    is_until = tf.reduce_any(markers[:-1, None] == until, axis=1)
    is_last = ~is_followed | is_until
    last = tf.argmax(tf.concat([is_last, [True]], axis=0))
    end = tf.where(is_free[last], tf.size(values) - left, ends[last])
    return at + end, at + starts[: last + 1], segments[: last + 1]


def _numbers(segment_bytes: tf.Tensor) -> tf.Tensor:
    """Makes segments of their bytes, uint8 [S, 10] -> int32 [S, 6]."""
    weights = np.zeros((_SEGMENT_BYTES, len(_OF_NUMBERS)), np.int32)
    for number, places in enumerate(_OF_NUMBERS):
        weights[places, number] = (256, 1)[-len(places) :]
    return tf.cast(segment_bytes, tf.int32) @ weights


def _frame(
    segments: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads the frame of a JPEG.

    Args:
        segments: int32 [S, 6], up to the first scan or without any.

    Returns:
        Height and width, int32 [], 0 if there is no frame; and bool [], whether
        the last segment is that of the only scan. libjpeg-turbo decides this in
        the same way (jdinput.c, has_multiple_scans).
    """
    frame = segments[tf.argmax(_is_one_of(segments[:, 0], _FRAMES))]
    kind, _, _, height, width, num_components = tf.unstack(frame)
    marker, _, of_scan, *_ = tf.unstack(segments[-1])
    is_single = (of_scan == num_components) & (kind <= _SEQUENTIAL)
    return height, width, is_single & (marker == _SOS)


def _is_one_of(values: tf.Tensor, numbers: tuple[int, ...]) -> tf.Tensor:
    """Returns which values, int32 from 0 to 255, are one of some numbers."""
    table = np.zeros(256, bool)
    table[list(numbers)] = True
    return tf.gather(tf.constant(table), values)
