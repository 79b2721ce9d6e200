"""Damaged JPEGs that decode all the same: libjpeg fills in what it cannot read.

TensorFlow prints libjpeg's complaint without the name of the file, and Pillow
drops it. simplejpeg, which has the same libjpeg-turbo, can raise it.
"""

import simplejpeg

from sare_tf.dataset.image_refusal import JPEG


def complaint(encoded: bytes) -> str:
    """Returns libjpeg's complaint of a JPEG; empty for none, or for a PNG.

    Only the size that takes least is decoded: an eighth of each side, in grey.

    Args:
        encoded: the bytes of an image that decodes.
    """
    if not encoded.startswith(JPEG):
        return ""
    try:
        colours = simplejpeg.decode_jpeg_header(encoded, strict=False)[2]
        simplejpeg.decode_jpeg(
            encoded,
            "CMYK" if colours in ("CMYK", "YCCK") else "GRAY",
            fastdct=True,
            min_height=1,
            min_width=1,
            min_factor=8,
            strict=True,
        )
    except ValueError as error:
        return str(error)
    return ""
