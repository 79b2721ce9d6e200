"""Which image files are refused, by their header, and why.

A JPEG or PNG of at most `MOST_PIXELS` is decoded; every other file is refused
before it takes memory.
"""

import tensorflow as tf

# Decoded, an image has 3 bytes per pixel, and 12 while it is resized. 8192 x
# 8192, above the 50 million of telephones: ours. It must be the same in
# training and in an export.
MOST_PIXELS = 1 << 26

# First bytes of a file. JPEG: ITU-T T.81, section B.1.1: SOI, then another
# marker. PNG specification, section 5.2.
JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
# First bytes of files that often have the name of a JPEG, by position.
_OTHERS = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (8, b"WEBP", "a WebP"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftypavif", "an AVIF"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"<", "an HTML or XML"),
)
_HEADER_BYTES = 24


def why_not(encoded: bytes) -> str:
    """Says in one line why an image that cannot be decoded is refused."""
    kind = "JPEG" if encoded.startswith(JPEG) else "PNG"
    return header_problem(encoded) or f"a damaged or truncated {kind}"


def header_problem(encoded: bytes) -> str:
    """Says why an image is refused before it is decoded; empty if it is not."""
    if not encoded:
        return "empty file"
    if not encoded.startswith((JPEG, PNG)):
        kinds = [
            f": {name} file"
            for offset, first_bytes, name in _OTHERS
            if encoded.startswith(first_bytes, offset)
        ]
        return "not a JPEG or PNG image" + (kinds or [""])[0]
    kind = "JPEG" if encoded.startswith(JPEG) else "PNG"
    try:
        height, width = stored_size(encoded).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        height, width = 0, 0
    if height < 1 or width < 1:
        return f"a {kind} with a damaged or truncated header"
    if height * width > MOST_PIXELS:
        return (
            f"{width} x {height} are more than {MOST_PIXELS:,} pixels: make "
            "it smaller"
        )
    return ""


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def stored_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """Reads height and width in the header, string [] -> int64 [2].

    They are those of the pixels as stored, before EXIF turns the image. Zeros
    for a file that is neither a JPEG nor a PNG. A JPEG whose header ends early
    is an InvalidArgumentError.
    """
    head = tf.strings.substr(image_bytes, 0, _HEADER_BYTES)

    def of_jpeg() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(image_bytes, output_type=tf.int32)
        return tf.cast(shape[:2], tf.int64)

    def of_png() -> tf.Tensor:
        # Width and height are the first 8 bytes of the first chunk's data.
        padded = tf.strings.join([head, _HEADER_BYTES * "\0"])
        sides = tf.io.decode_raw(
            tf.strings.substr(padded, 16, 8), tf.int32, little_endian=False
        )
        return tf.cast(sides[::-1], tf.int64)

    return tf.cond(
        tf.strings.substr(head, 0, len(JPEG)) == JPEG,
        of_jpeg,
        lambda: tf.cond(
            tf.strings.substr(head, 0, len(PNG)) == PNG,
            of_png,
            lambda: tf.zeros(2, tf.int64),
        ),
    )
