"""What is stored of an image. PIL is the independent reader of the results."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from toy_images import with_scans

from sare_tf.dataset import image_decoding, jpeg_damage
from sare_tf.records import stored_image
from sare_tf.records.shard_plan import Preparation

AS_IS = Preparation()
UNSEEN = Preparation(verify=False)


def picture(height, width):
    """Smooth, so that JPEG changes it by little; every corner differs."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = (240 * rows / height, 240 * columns / width, 0 * rows + 90)
    return np.stack(planes, axis=-1).astype(np.uint8)


def encode(pixels, kind="JPEG", **options):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return encoded.getvalue()


def largest_difference(stored, reference, *, quality=95):
    """From PIL's JPEG of PIL's image, whose losses are the same.

    Of resized images, pixels may be rounded to the other side before they are
    encoded, and the JPEGs of these differ by a little more.
    """
    expected = opened(encode(np.asarray(reference), quality=quality))
    difference = np.asarray(opened(stored), int) - np.asarray(expected, int)
    return np.abs(difference).max()


def turned(orientation, height=20, width=32):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture(height, width), quality=98, exif=exif)


def opened(encoded):
    return Image.open(io.BytesIO(encoded))


def prepare(encoded, *, box=None, **options):
    return stored_image.prepare(
        encoded, box=box, preparation=Preparation(**options)
    )


@pytest.mark.parametrize("preparation", [AS_IS, UNSEEN])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_is_kept_and_its_upright_size_told(orientation, preparation):
    encoded = turned(orientation)
    stored, height, width = stored_image.prepare(
        encoded, box=None, preparation=preparation
    )
    assert stored == encoded
    assert (width, height) == ImageOps.exif_transpose(opened(encoded)).size


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"comment": b"x" * 5000}),
        ("JPEG", {"icc_profile": bytes(70_000)}),
        ("PNG", {}),
    ],
)
def test_the_header_tells_what_decoding_does(kind, options):
    encoded = encode(picture(33, 17), kind, **options)
    assert prepare(encoded, verify=False) == (encoded, 33, 17)
    assert image_decoding.decode(encoded).shape == (33, 17, 3)


def test_fill_before_a_marker():
    encoded = encode(picture(9, 8))
    for before in (b"\xff", b"\xff\x01", b"\xff\xd0"):
        filled = encoded[:2] + before + encoded[2:]
        for verify in (True, False):
            assert prepare(filled, verify=verify) == (filled, 9, 8)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "empty file"),
        (b"GIF89a", "not a JPEG or PNG image"),
        (encode(picture(9, 8))[:100], "with a damaged or truncated header"),
        (b"\xff\xd8\xff\xda" + bytes(20), "with a damaged or truncated header"),
        (b"\xff\xd8" + bytes(20), "not a JPEG or PNG image"),
        (
            encode(picture(9, 8), "PNG")[:20],
            "with a damaged or truncated header",
        ),
        (
            b"\x89PNG\r\n\x1a\n" + 4 * b"\0" + b"IHDR" + bytes(13),
            "with a damaged or truncated header",
        ),
    ],
)
def test_headers_without_a_size_are_refused(encoded, reason):
    with pytest.raises(ValueError, match=reason):
        stored_image.prepare(encoded, box=None, preparation=UNSEEN)


def test_a_truncated_image_is_found_by_decoding_alone():
    encoded = encode(picture(64, 64), quality=100)
    half = encoded[: len(encoded) // 2]
    assert prepare(half, verify=False) == (half, 64, 64)
    with pytest.raises(ValueError, match="truncated"):
        prepare(half)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_check_finds_what_decoding_does(mode, options):
    """Of files cut short and with bytes changed, one in two is damaged."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (40, 56, 3), dtype=np.uint8))
    encoded = io.BytesIO()
    noise.convert(mode).save(encoded, "JPEG", quality=80, **options)
    refused = 0
    for turn in range(60):
        changed = bytearray(encoded.getvalue())
        if turn % 3:
            for position in rng.integers(0, len(changed), rng.integers(1, 6)):
                changed[position] = rng.integers(0, 256)
        else:
            del changed[rng.integers(2, len(changed)) :]
        try:
            expected = tuple(image_decoding.decode(bytes(changed)).shape[:2])
        except tf.errors.InvalidArgumentError:
            refused += 1
            with pytest.raises(ValueError, match="."):
                prepare(bytes(changed))
        else:
            assert prepare(bytes(changed)) == (bytes(changed), *expected)
    assert 10 < refused < 50


def test_sizes_of_a_batch():
    """Files that the decoder has to decide about have none."""
    usable = turned(6), turned(3), encode(picture(33, 17))
    png = encode(picture(9, 8), "PNG")
    for verify in (True, False):
        looks = stored_image.look(
            [*usable, png, b"", with_scans(32)], verify=verify
        )
        assert looks == [
            ((32, 20), ""),
            ((20, 32), ""),
            ((33, 17), ""),
            (None if verify else (9, 8), ""),
            (None, ""),
            (None, ""),
        ]
    *seen, cut = stored_image.look([*usable, usable[2][:-60]], verify=True)
    assert [size for size, _ in seen] == [(32, 20), (20, 32), (33, 17)]
    assert cut == (None, "Premature end of JPEG file")


def test_damaged_jpegs_that_decode_are_seen():
    """Their sizes are known, and libjpeg's complaint."""
    whole = encode(picture(33, 17))
    filled = whole[:-2] + bytes(500) + whole[-2:]
    looks = stored_image.look([whole, filled, turned(6)], verify=True)
    # Three of them are taken for the end of the data.
    complaint = "Corrupt JPEG data: 497 extraneous bytes before marker 0xd9"
    assert looks == [((33, 17), ""), ((33, 17), complaint), ((32, 20), "")]
    assert stored_image.look([filled], verify=False) == [((33, 17), "")]


def test_unusual_jpegs_are_left_to_tensorflow():
    """Arithmetic codes, lossless, 12 bits, and colours without a name."""
    whole = encode(picture(33, 17))
    frame = whole.index(b"\xff\xc0")
    assert jpeg_damage.is_common(whole)
    assert not jpeg_damage.is_common(whole[:frame])
    for marker, precision, components in (
        *((0xC9, 8, 3), (0xC3, 8, 3), (0xC1, 12, 3), (0xC0, 8, 2)),
    ):
        changed = bytearray(whole)
        changed[frame + 1], changed[frame + 4] = marker, precision
        changed[frame + 9] = components
        changed = bytes(changed)
        assert jpeg_damage.is_common(changed) == (marker == 0xC0)
        try:
            expected = image_decoding.decode(changed).shape[:2]
        except tf.errors.InvalidArgumentError:
            with pytest.raises(ValueError, match="damaged or truncated JPEG"):
                prepare(changed)
        else:
            assert prepare(changed) == (changed, *expected)


@pytest.mark.parametrize("verify", [True, False])
def test_an_image_that_costs_too_much(verify):
    with pytest.raises(ValueError, match="of more than 32 scans"):
        prepare(with_scans(32), verify=verify)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_new_jpeg_is_upright_and_untagged(orientation):
    encoded = turned(orientation)
    stored, height, width = prepare(encoded, jpeg_quality=98)
    result = opened(stored)
    upright = ImageOps.exif_transpose(opened(encoded))
    assert result.format == "JPEG"
    assert 0x0112 not in result.getexif()
    assert (width, height) == result.size == upright.size
    assert largest_difference(stored, upright, quality=98) <= 2


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(20, 32, (10, 16)), (32, 20, (16, 10)), (2, 200, (1, 16))],
)
def test_a_larger_image_is_made_smaller(height, width, expected):
    encoded = encode(picture(height, width), "PNG")
    stored, *size = prepare(encoded, longest_side=16)
    result = opened(stored)
    assert tuple(size) == expected == result.size[::-1]
    assert result.format == "JPEG"
    # PIL's filter of the same name, triangles as wide as a new pixel.
    reference = opened(encoded).resize(expected[::-1], Image.BILINEAR)
    assert largest_difference(stored, reference) <= 5


@pytest.mark.parametrize("verify", [True, False])
def test_an_image_of_the_size_wanted_is_kept(verify):
    encoded = encode(picture(20, 32))
    assert prepare(encoded, longest_side=32, verify=verify)[0] == encoded


def test_a_turned_image_is_made_smaller_upright():
    encoded = turned(6)
    stored, height, width = prepare(encoded, longest_side=16)
    assert (height, width) == (16, 10)
    assert opened(stored).size == (10, 16)
    assert 0x0112 not in opened(stored).getexif()
    upright = ImageOps.exif_transpose(opened(encoded))
    reference = upright.resize((10, 16), Image.BILINEAR)
    assert largest_difference(stored, reference) <= 5


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_part_is_cut_of_the_upright_image(orientation):
    encoded = turned(orientation)
    stored, height, width = prepare(encoded, box=(2, 3, 12, 19))
    upright = np.asarray(ImageOps.exif_transpose(opened(encoded)))
    assert (height, width) == (16, 10)
    np.testing.assert_array_equal(opened(stored), upright[3:19, 2:12])


def test_a_part_is_made_smaller_after_it_is_cut():
    encoded = encode(picture(64, 64), "PNG")
    stored, height, width = prepare(
        encoded, box=(32, 0, 64, 16), longest_side=16
    )
    assert (height, width) == (8, 16)
    part = Image.fromarray(picture(64, 64)[:16, 32:])
    reference = part.resize((16, 8), Image.BILINEAR)
    assert largest_difference(stored, reference) <= 5


def test_the_same_bytes_each_time():
    encoded = encode(picture(40, 64))
    options = {"longest_side": 32, "jpeg_quality": 80}
    assert prepare(encoded, **options) == prepare(encoded, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest_side": -1}, "--resize_to"),
        ({"jpeg_quality": 101}, "--reencode_quality"),
        ({"jpeg_quality": -1}, "--reencode_quality"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**options)
