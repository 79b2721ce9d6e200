"""Turning photographs by their EXIF header, against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from sare_tf.dataset import exif_orientation, image_decoding


def encode(number, *, endian=">", kind="JPEG", other_tags=True, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3))
    pixels = pixels.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    if number is not None:
        exif = Image.Exif()
        exif.endian = endian
        exif[0x0112] = number
        if other_tags:
            exif[0x010F], exif[0x0132] = "maker", "2019:10:27 10:00:00"
        options["exif"] = exif
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return encoded.getvalue()


def by_pillow(encoded):
    image = Image.open(io.BytesIO(encoded))
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("number", [None, *range(1, 9)])
def test_equals_pillow(number, endian):
    encoded = encode(number, endian=endian)
    assert exif_orientation.read(encoded) == (number or 1)
    found = image_decoding.decode(encoded).numpy()
    assert found.shape[:2] == ((56, 40) if (number or 1) >= 5 else (40, 56))
    np.testing.assert_array_equal(found, by_pillow(encoded))


def test_the_same_in_a_pipeline():
    encoded = [encode(number) for number in range(1, 9)]
    dataset = tf.data.Dataset.from_tensor_slices(encoded).map(
        image_decoding.decode
    )
    for one, found in zip(encoded, dataset, strict=True):
        np.testing.assert_array_equal(found, by_pillow(one))


def test_the_header_may_follow_other_segments():
    jpeg = encode(6, comment=b"Exif\0\0" + 90 * b"c")
    comment = b"\xff\xfe\x00\x0a" + 8 * b"\xff"
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
    xmp = b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp
    moved = jpeg[:2] + comment + xmp + jpeg[2:]
    np.testing.assert_array_equal(by_pillow(moved), by_pillow(jpeg))
    np.testing.assert_array_equal(image_decoding.decode(moved), by_pillow(jpeg))


def test_what_is_no_header_is_none():
    no_tag = encode(9, other_tags=False)
    in_a_comment = encode(None, comment=encode(6)[:200])
    of_a_png = encode(6, kind="PNG")
    for encoded in (no_tag, in_a_comment, of_a_png, b"", b"Exif\0\0"):
        assert exif_orientation.read(encoded) == 1


def test_damaged_headers_fail_nothing():
    jpeg = bytearray(encode(6))
    end = jpeg.index(b"\xff\xdb")  # the header is all before
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(300):
        damaged = jpeg.copy()
        for at in rng.integers(2, end, 3):
            damaged[at] = rng.integers(256)
        found.add(int(exif_orientation.read(bytes(damaged))))
        found.add(
            int(exif_orientation.read(bytes(damaged[: rng.integers(end)])))
        )
    assert found <= set(range(1, 9))
    assert {1, 6} <= found
