"""Damaged JPEGs that decode all the same: libjpeg fills in what it cannot read.

TensorFlow prints libjpeg's complaint without the name of the file, and Pillow
drops it. simplejpeg, which has the same libjpeg-turbo, can raise it.
"""

import simplejpeg

from sare_tf.dataset.image_header import JPEG

# Images are decoded at one in so many rows and columns, in grey: that takes
# least, and reads all of the file.
SCALE = 8

# Markers, ITU-T T.81, table B.1. Frames of 8 bits that every libjpeg decodes:
# baseline, extended and progressive, with Huffman codes.
_FRAMES = (0xC0, 0xC1, 0xC2)
# DHT, DQT, DRI, APPn and COM, which come before a frame.
_BEFORE_FRAME = (0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE)


def complaint(encoded: bytes) -> str:
    """Returns libjpeg's complaint of a JPEG; empty for none, or for a PNG.

    Args:
        encoded: the bytes of an image that decodes.
    """
    return decode(encoded)[1] if encoded.startswith(JPEG) else ""


def decode(encoded: bytes) -> tuple[tuple[int, int] | None, str]:
    """Decodes a JPEG, to learn what libjpeg complains of.

    Args:
        encoded: the bytes of a JPEG whose size is within the limits.

    Returns:
        Height and width at an eighth, rounded up, or None where libjpeg gave up
        or complained; and the complaint, empty for colours of an unknown kind.
    """
    try:
        colours = simplejpeg.decode_jpeg_header(encoded, strict=False)[2]
        image = simplejpeg.decode_jpeg(
            encoded,
            "CMYK" if colours in ("CMYK", "YCCK") else "GRAY",
            fastdct=True,
            min_height=1,
            min_width=1,
            min_factor=SCALE,
            strict=True,
        )
    except KeyError:  # simplejpeg has no name for the colours.
        return None, ""
    except ValueError as error:
        return None, str(error)
    return image.shape[:2], ""


def is_common(encoded: bytes) -> bool:
    """Returns whether every libjpeg decodes a JPEG in the same way.

    Versions of libjpeg differ in whether they decode lossless JPEGs, arithmetic
    codes and 12 bits.

    Args:
        encoded: the bytes of a JPEG.
    """
    position = 2
    while position + 5 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker in _FRAMES:
            return encoded[position + 4] == 8
        if marker not in _BEFORE_FRAME:
            return False
        position += 2 + int.from_bytes(
            encoded[position + 2 : position + 4], "big"
        )
    return False
