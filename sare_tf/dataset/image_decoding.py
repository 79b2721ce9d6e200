"""Encoded bytes -> image tensor: the one preprocessing of the project.

Training, indexing and the exported graph all call `load`, so that what is
served is what was trained. Images are RGB, uint8, [H, W, 3], upright: a JPEG
whose EXIF header says how the camera was held is turned by it, as viewers do.
The original code, and most others of this field, leave such images as they
were stored.
"""

import numpy as np
import tensorflow as tf

from sare_tf.dataset import exif_orientation

# An image with more is refused by its header, before it takes memory: decoded
# it has 3 bytes per pixel, and 12 while it is resized. 8192 x 8192, above the
# 50 million of telephones; it must hold in training and when served alike.
MOST_PIXELS = 1 << 26

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"
# First bytes of what is often found under the name of a JPEG, by position.
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
# What a check tells of images that are used all the same.
TRAITS = ("turned", "cmyk", "16_bit", "animated")


def decode(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG or PNG, string [] -> uint8 [H, W, 3], upright.

    What else TensorFlow could decode (GIF, WebP), and more than `MOST_PIXELS`,
    is an InvalidArgumentError. Of a PNG with 16 bits the high byte is taken, of
    an animated one the first image; transparency is passed over.

    INTEGER_ACCURATE equals PIL bit for bit; TensorFlow's default does not.
    """
    image = tf.io.decode_jpeg(
        _checked(image_bytes), channels=3, dct_method="INTEGER_ACCURATE"
    )
    return exif_orientation.apply(image, exif_orientation.read(image_bytes))


def pixels(encoded: bytes) -> np.ndarray:
    """Decodes one image at once, as `decode` does: uint8 [H, W, 3].

    Raises:
        ValueError: it cannot be decoded; says why in one line.
    """
    try:
        return decode(encoded).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(why_not(encoded)) from error


def why_not(encoded: bytes) -> str:
    """Why `decode` refuses an image, in one line."""
    kind = "JPEG" if encoded.startswith(_JPEG) else "PNG"
    return header_problem(encoded) or f"a damaged or truncated {kind}"


def header_problem(encoded: bytes) -> str:
    """Why an image is refused before it is decoded; empty if it is not."""
    if not encoded:
        return "empty file"
    if not encoded.startswith((_JPEG, _PNG)):
        kinds = [
            f": {name} file"
            for at, first, name in _OTHERS
            if encoded.startswith(first, at)
        ]
        return "not a JPEG or PNG image" + (kinds or [""])[0]
    kind = "JPEG" if encoded.startswith(_JPEG) else "PNG"
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


def cut(
    image: np.ndarray, box: tuple[float, float, float, float]
) -> np.ndarray:
    """The part of an image inside a box; what lies beyond is left out.

    Args:
        image: [H, W, 3].
        box: left, top, right and bottom, in pixels, rounded.

    Raises:
        ValueError: nothing of it lies inside.
    """
    height, width, _ = image.shape
    left, top, right, bottom = (round(edge) for edge in box)
    part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not part.size:
        raise ValueError(
            f"the part {box} lies outside the image, {width} x {height} pixels"
        )
    return part


def examine(encoded: bytes) -> tuple[int, int, list[str]]:
    """Decodes one image at once; height, width, and those of `TRAITS` it has.

    Raises:
        ValueError: it cannot be decoded; says why in one line.
    """
    try:
        height, width, turned = _examined(encoded).numpy().tolist()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(why_not(encoded)) from error
    is_png = encoded.startswith(_PNG)
    found = {
        "turned": turned != 1,
        "cmyk": not is_png and tf.io.extract_jpeg_shape(encoded)[2] == 4,
        # Width, height, then the bits of a channel.
        "16_bit": is_png and encoded[24] == 16,
        # The chunk that says so comes before the first of the image.
        "animated": is_png and b"acTL" in encoded[: encoded.find(b"IDAT")],
    }
    return height, width, [name for name in TRAITS if found[name]]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def stored_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width in the header, string [] -> int64 [2], not turned.

    Zeros for what is neither a JPEG nor a PNG. A JPEG whose header ends early
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
        tf.strings.substr(head, 0, len(_JPEG)) == _JPEG,
        of_jpeg,
        lambda: tf.cond(
            tf.strings.substr(head, 0, len(_PNG)) == _PNG,
            of_png,
            lambda: tf.zeros(2, tf.int64),
        ),
    )


def resize(image: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Resizes with antialiased bilinear interpolation.

    Bit for bit `tf.image.resize`, in less than half of its time: its kernel is
    quick where columns are moved whole, so each axis in its turn is the rows.

    Args:
        image: uint8 [H, W, 3] or [B, H, W, 3].
        height: rows of the result.
        width: columns of the result.

    Returns:
        uint8 [height, width, 3] or [B, height, width, 3], rounded to nearest.
    """
    image = tf.convert_to_tensor(image)
    batch = image if image.shape.rank == 4 else image[None]
    turn = (0, 2, 1, 3)
    lower = tf.transpose(_with_rows(batch, height), turn)
    resized = tf.transpose(_with_rows(lower, width), turn)
    rounded = tf.saturate_cast(tf.round(resized), tf.uint8)
    return rounded if image.shape.rank == 4 else rounded[0]


def _with_rows(batch: tf.Tensor, rows: int) -> tf.Tensor:
    """[B, H, W, C] -> float32 [B, rows, W, C]."""
    shape = tf.shape(batch)
    height = tf.cast(shape[1], tf.float32)
    resized = tf.raw_ops.ScaleAndTranslate(
        # A pixel is a whole row: the kernel takes any number of channels.
        images=tf.reshape(batch, (shape[0], shape[1], 1, shape[2] * shape[3])),
        size=tf.stack([rows, 1]),
        scale=tf.stack([tf.cast(rows, tf.float32) / height, 1.0]),
        translation=tf.zeros(2),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(resized, (shape[0], rows, shape[2], shape[3]))


def load(image_bytes: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """Decodes and resizes, string [] -> uint8 [height, width, 3].

    An image that has the size already keeps its pixels exactly.
    """
    image = decode(image_bytes)
    # To resize takes three times as long as to decode, also to the same size.
    image = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == [height, width]),
        lambda: image,
        lambda: resize(image, height=height, width=width),
    )
    return tf.ensure_shape(image, (height, width, 3))


def load_batch(
    image_bytes: tf.Tensor, *, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and resizes a batch of which some images may be damaged.

    An image's error stays its own because a tf.data pipeline leaves it out,
    which also works in a graph that is served: its ops are part of every
    TensorFlow.

    Args:
        image_bytes: string [B]; B may be 0.
        height: rows of an image.
        width: columns of an image.

    Returns:
        uint8 [B, height, width, 3], zeros where an image cannot be decoded,
        and bool [B], whether it can.
    """
    count = tf.size(image_bytes, out_type=tf.int64)
    # In row B, so that the pipeline never is without an element.
    last = tf.data.Dataset.from_tensors(
        (count, tf.zeros((height, width, 3), tf.uint8))
    )
    dataset = (
        tf.data.Dataset.from_tensor_slices(image_bytes)
        .enumerate()
        .map(
            lambda row, encoded: (
                row,
                load(encoded, height=height, width=width),
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .ignore_errors()
        .concatenate(last)
        .batch(count + 1)
    )
    # Without tuning, which one batch is too short for, all cores decode.
    options = tf.data.Options()
    options.autotune.enabled = False
    rows, loaded = dataset.with_options(options).get_single_element()
    rows = rows[:, None]
    shape = tf.stack([count + 1, height, width, 3])
    loaded = tf.scatter_nd(rows, loaded, shape)[:-1]
    valid = tf.scatter_nd(rows, tf.ones_like(rows[:, 0], tf.bool), [count + 1])
    return tf.ensure_shape(loaded, (None, height, width, 3)), valid[:-1]


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _checked(image_bytes: tf.Tensor) -> tf.Tensor:
    """The same bytes, once their header has passed."""
    size = stored_size(image_bytes)
    area = tf.reduce_prod(size)
    # The op itself: tf.debugging.Assert adds a condition around it.
    passed = tf.raw_ops.Assert(
        condition=(area > 0) & (area <= MOST_PIXELS),
        data=["not a JPEG or PNG image, or too large: height, width", size],
    )
    with tf.control_dependencies([passed]):
        return tf.identity(image_bytes)


# The pixels stay where they are decoded.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _examined(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height, width and orientation, string [] -> int32 [3]."""
    height, width, _ = tf.unstack(tf.shape(decode(image_bytes)))
    return tf.stack([height, width, exif_orientation.read(image_bytes)])
