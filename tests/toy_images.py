"""Encoded images of all kinds that arrive under the name of a JPEG or PNG."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
# Blocks of 8 x 8 pixels of one colour.
RGB = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
RGB = RGB.repeat(8, 0).repeat(8, 1)
DEEP_GREY = RNG.integers(0, 1 << 16, (6, 8)).astype(np.uint16)
DEEP_RGB = RNG.integers(0, 1 << 16, (6, 8, 3)).astype(np.uint16)


def encode(image, kind, **options):
    encoded = io.BytesIO()
    image.save(encoded, kind, **options)
    return encoded.getvalue()


def _several(kind, **options):
    first, *others = [
        Image.fromarray(np.roll(RGB, 8 * shift, 1)) for shift in range(3)
    ]
    return encode(first, kind, save_all=True, append_images=others, **options)


def chunk(name, content):
    """A chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return (
        struct.pack(">I4s", len(content), name)
        + content
        + struct.pack(">I", checksum)
    )


def png(height, width, *, bits=8, colour=2, rows=b""):
    """A PNG by hand: its header says what is told, its data what `rows` has."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def jpeg_that_says(height, width, *, encoded=None):
    """A JPEG, by default a small one, whose header says another size."""
    encoded = bytearray(encoded or encode(Image.fromarray(RGB), "JPEG"))
    start = max(encoded.find(frame) for frame in (b"\xff\xc0", b"\xff\xc2")) + 5
    encoded[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(encoded)


def with_scans(copies, *, image=None):
    """A grey progressive JPEG of 6 scans, and `copies` more of the last one."""
    image = image or Image.new("L", (16, 16), 77)
    encoded = encode(image, "JPEG", progressive=True)
    # With the tables before it.
    last_scan = encoded[encoded.rindex(b"\xff\xc4") : -2]
    return encoded[:-2] + copies * last_scan + encoded[-2:]


def of_separate_scans():
    """A baseline JPEG of 16 x 16 pixels, with a scan for each component."""
    encoded = encode(Image.new("RGB", (16, 16), "red"), "JPEG", subsampling=0)
    scan = encoded.index(b"\xff\xda")
    # Four blocks of DC difference 0 and end of block by the tables of T.81,
    # K.3: 00 and 1010, or 00 and 00 for colours; ones fill the last byte.
    data = {0: "001010" * 4, 1: "0000" * 4}
    scans = b""
    for component in range(3):
        table = min(component, 1)
        bits = data[table].ljust(24, "1")
        scans += struct.pack(
            ">BBHBBBBBB", 0xFF, 0xDA, 8, 1, component + 1, 17 * table, 0, 63, 0
        ) + int(bits, 2).to_bytes(3, "big").replace(b"\xff", b"\xff\0")
    return encoded[:scan] + scans + b"\xff\xd9"


_IMAGE = Image.fromarray(RGB)
_DEEP_ROWS = b"".join(b"\0" + row.tobytes() for row in DEEP_RGB.astype(">u2"))
_JPEG = encode(_IMAGE, "JPEG")
_PNG = encode(_IMAGE, "PNG")
_TEXT = b"k\0\0" + zlib.compress(b"t")

GOOD = {
    "jpeg": _JPEG,
    "grey": encode(_IMAGE.convert("L"), "JPEG"),
    "progressive": encode(_IMAGE, "JPEG", progressive=True),
    "cmyk": encode(_IMAGE.convert("CMYK"), "JPEG", quality=95),
    "png": _PNG,
    "palette": encode(_IMAGE.convert("P"), "PNG"),
    "one_bit": encode(_IMAGE.convert("1"), "PNG"),
    "transparent": encode(_IMAGE.convert("RGBA"), "PNG"),
    "animated_png": _several("PNG"),
    "png_of_texts": _PNG[:33] + 32 * chunk(b"zTXt", _TEXT) + _PNG[33:],
    "jpeg_of_scans": with_scans(26, image=_IMAGE.convert("L")),
}
DEEP = {
    "deep_grey": encode(Image.fromarray(DEEP_GREY), "PNG"),
    "deep_rgb": png(6, 8, bits=16, rows=_DEEP_ROWS),
}
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
TURNED = encode(_IMAGE, "JPEG", exif=_EXIF)
# Behind as much XMP as telephones write.
_XMP = b"http://ns.adobe.com/xmp/extension/\0" + bytes(50_000)
TURNED_LATE = (
    TURNED[:2] + struct.pack(">HH", 0xFFE1, len(_XMP) + 2) + _XMP + TURNED[2:]
)
TURNED_PNG = encode(_IMAGE, "PNG", exif=_EXIF)
# Why each cannot be used.
BAD = {
    "empty": (b"", "empty file"),
    "text": (b"this is no image", "not a JPEG or PNG image"),
    "page": (
        b"<!DOCTYPE html><p>Not found",
        "not a JPEG or PNG image: an HTML or XML file",
    ),
    "gif": (
        encode(_IMAGE.convert("P"), "GIF"),
        "not a JPEG or PNG image: a GIF file",
    ),
    "animated_gif": (_several("GIF"), "not a JPEG or PNG image: a GIF file"),
    "webp": (encode(_IMAGE, "WEBP"), "not a JPEG or PNG image: a WebP file"),
    "animated_webp": (
        _several("WEBP", lossless=True),
        "not a JPEG or PNG image: a WebP file",
    ),
    "bmp": (encode(_IMAGE, "BMP"), "not a JPEG or PNG image: a BMP file"),
    "tiff": (encode(_IMAGE, "TIFF"), "not a JPEG or PNG image: a TIFF file"),
    "heic": (
        b"\0\0\0\x18ftypheic\0\0\0\0",
        "not a JPEG or PNG image: a HEIC file",
    ),
    "half_jpeg": (
        _JPEG[:-60],
        "a damaged or truncated JPEG",
    ),
    "jpeg_without_end": (
        _JPEG[:-2],
        "a damaged or truncated JPEG",
    ),
    "half_png": (
        _PNG[: len(_PNG) // 2],
        "a damaged or truncated PNG",
    ),
    "jpeg_header": (
        _JPEG[:30],
        "a JPEG with a damaged or truncated header",
    ),
    "png_header": (_PNG[:18], "a PNG with a damaged or truncated header"),
    "png_of_nothing": (
        png(0, 5),
        "a PNG with a damaged or truncated header",
    ),
    "png_beyond_31_bits": (
        png(2**31 + 5, 9000),
        "a PNG with a damaged or truncated header",
    ),
    "large_jpeg": (
        jpeg_that_says(9000, 12000),
        "12000 x 9000 are more than 67,108,864 pixels",
    ),
    "many_scans": (with_scans(32), "a JPEG of more than 32 scans"),
    "many_texts": (
        _PNG[:33] + 33 * chunk(b"zTXt", _TEXT) + _PNG[33:],
        "a PNG of more than 32 compressed texts",
    ),
    "many_texts_at_the_end": (
        _PNG[:-12] + 33 * chunk(b"iTXt", _TEXT) + _PNG[-12:],
        "a PNG of more than 32 compressed texts",
    ),
    "large_png": (
        png(9000, 12000),
        "12000 x 9000 are more than 67,108,864 pixels",
    ),
}


def heic(pixels, **save):
    """A HEIC file of uint8 [H, W, 3]."""
    import pillow_heif

    encoded = io.BytesIO()
    image = pillow_heif.from_pillow(Image.fromarray(pixels))
    image.save(encoded, quality=95, **save)
    return encoded.getvalue()
