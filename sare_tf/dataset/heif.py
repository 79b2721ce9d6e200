"""HEIC and HEIF photographs, as telephones of Apple write them, as JPEG.

The exported graph decodes JPEG and PNG only, so that a HEIF file becomes a JPEG
before it is stored or looked up. Both use the same function, so that a
photograph has the same descriptor in a database and as a query. The extra heif
(pillow-heif with libheif) decodes; without it such a file is refused, with the
command that converts it.
"""

import io
import re
import warnings
from typing import TYPE_CHECKING

from sare_tf.dataset.image_limits import MOST_PIXELS

if TYPE_CHECKING:
    from PIL import Image

# The brands of ISO/IEC 23008-12 (HEIF) for images coded as HEVC, and the
# structural ones, which AVIF has, too.
_BRANDS = (
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
)
# An AVIF file names its own brand among the compatible ones.
_AVIF = (b"avif", b"avis")
# Bytes of a file that show what it is.
FIRST_BYTES = 64
# Ours: hardly visible, and a quarter of the bytes of a PNG.
_QUALITY = 95


class MissingDecoder(ValueError):
    """The extra heif is not installed."""


def is_heif(first_bytes: bytes) -> bool:
    """Returns whether a file is HEIC or HEIF, whatever its name is.

    Args:
        first_bytes: of the file, at least `FIRST_BYTES` of a longer one.
    """
    if first_bytes[4:8] != b"ftyp":
        return False
    size = int.from_bytes(first_bytes[:4], "big")
    compatible = first_bytes[16 : min(size, FIRST_BYTES)]
    brands = {first_bytes[8:12], *re.findall(b"....", compatible, re.DOTALL)}
    return bool(brands.intersection(_BRANDS)) and not brands.intersection(_AVIF)


def as_jpeg(encoded: bytes) -> bytes:
    """Converts a HEIF file to JPEG, upright and without its header.

    Args:
        encoded: bytes of an image file.

    Returns:
        The JPEG; a file that is no HEIF is returned as it is.

    Raises:
        MissingDecoder: the extra heif is not installed.
        ValueError: the file is damaged, or has too many pixels; says so in one
            line.
    """
    if not is_heif(encoded[:FIRST_BYTES]):
        return encoded
    register()
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns of large panoramas; the limit below is ours.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded)) as image:
                width, height = image.size
                if width * height <= MOST_PIXELS:
                    return _encode(image)
    except Exception as error:  # libheif raises errors of many kinds.
        raise ValueError(f"a damaged or truncated HEIC: {error}") from error
    raise ValueError(
        f"{width} x {height} are more than {MOST_PIXELS:,} pixels: make it "
        "smaller"
    )


def register() -> None:
    """Makes Pillow open HEIF files.

    Raises:
        MissingDecoder: the extra heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingDecoder(
            'a HEIC file: run pip install "sare_tf[heif]" to read it, or '
            "convert it with heif-convert PHOTO.heic PHOTO.jpg (on macOS: sips "
            "-s format jpeg PHOTO.heic --out PHOTO.jpg)"
        ) from error
    pillow_heif.register_heif_opener()


def _encode(image: "Image.Image") -> bytes:
    converted = io.BytesIO()
    # libheif has turned the image upright.
    image.convert("RGB").save(
        converted, "JPEG", quality=_QUALITY, subsampling=0
    )
    return converted.getvalue()
