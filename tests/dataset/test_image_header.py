"""Headers of photographs, against Pillow."""

import io
import itertools
import struct
import warnings

import numpy as np
import pytest
import tensorflow as tf
import toy_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from sare_tf.dataset import (
    image_decoding,
    image_header,
    image_refusal,
    png_header,
)

SHORT, LONG, SIGNED_SHORT, SIGNED_LONG = 3, 4, 8, 9
ORIENTATION, THUMBNAIL = 0x0112, 0x0201
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def encode(number=None, *, endian=">", kind="JPEG", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3))
    pixels = pixels.repeat(8, 0).repeat(8, 1).astype(np.uint8)
    if number is not None:
        exif = Image.Exif()
        exif.endian = endian
        exif[ORIENTATION] = number
        exif[0x010F], exif[0x0132] = "maker", "2019:10:27 10:00:00"
        options["exif"] = exif
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return encoded.getvalue()


PLAIN = encode()
# JFIF's segment, and the rest: tables, frame, scan.
JFIF, TABLES = PLAIN[2:20], PLAIN[20:]


def opened(encoded):
    return Image.open(io.BytesIO(encoded))


def by_pillow(encoded):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged headers
        return np.asarray(
            ImageOps.exif_transpose(opened(encoded)).convert("RGB")
        )


def read(encoded):
    return image_header.Header(*map(int, image_header.read(encoded)))


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def entry(value, *, tag=ORIENTATION, kind=SHORT, count=1):
    """An entry of a directory, as a function of its byte order."""

    def packed(order):
        code = {SHORT: "Hxx", SIGNED_SHORT: "hxx", SIGNED_LONG: "i"}
        return struct.pack(
            f"{order}HHI{code.get(kind, 'I')}", tag, kind, count, value
        )

    return packed


def tiff(*entries, order=">", start=8, following=0, after=b""):
    """A TIFF header with one directory at `start`."""
    first = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        f"{order}I", start
    )
    directory = struct.pack(f"{order}H", len(entries))
    directory += b"".join(one(order) for one in entries)
    directory += struct.pack(f"{order}I", following)
    return first.ljust(start, b"\0") + directory + after


def exif(*entries, **options):
    content = b"Exif\0\0" + tiff(*(entries or [entry(6)]), **options)
    return segment(0xE1, content)


def jpeg(*before, after=TABLES):
    return b"\xff\xd8" + b"".join(before) + after


def only_thumbnail_turned():
    """A first directory without the tag, and a second one that has it."""
    first = tiff(entry(1, tag=0x0128), following=26)
    second = struct.pack(">H", 1) + entry(6)(">") + bytes(4)
    return segment(0xE1, b"Exif\0\0" + first + second)


DQT_END = TABLES.index(b"\xff\xc0")
SOS = TABLES.index(b"\xff\xda")
ICC = b"ICC_PROFILE\0\1\1" + bytes(range(256)) * 20
HEADERS = {
    "none": (1, PLAIN),
    "first segment": (6, jpeg(exif())),
    "behind JFIF": (6, jpeg(JFIF, exif())),
    "little endian": (6, jpeg(exif(order="<"))),
    "behind XMP of 30 bytes": (6, jpeg(segment(0xE1, XMP + b"x"), exif())),
    "behind XMP of 5,000": (6, jpeg(segment(0xE1, XMP + bytes(5000)), exif())),
    # As Google's Pixel 7a writes them.
    "behind XMP of 50,397": (
        6,
        jpeg(
            JFIF,
            segment(
                0xE1, b"http://ns.adobe.com/xmp/extension/\0" + 50360 * b"x"
            ),
            exif(order="<"),
        ),
    ),
    "behind the longest": (6, jpeg(*3 * [segment(0xE1, bytes(65533))], exif())),
    "behind an ICC profile": (6, jpeg(segment(0xE2, ICC), exif())),
    "behind a comment": (6, jpeg(segment(0xFE, 9000 * b"c"), exif())),
    "behind a comment with EXIF": (
        3,
        jpeg(segment(0xFE, exif() * 30), exif(entry(3))),
    ),
    "behind APP13": (
        6,
        jpeg(segment(0xED, b"Photoshop 3.0\0" + 6000 * b"\xff"), exif()),
    ),
    "behind empty segments": (6, jpeg(*40 * [segment(0xE5, b"")], exif())),
    "after the tables": (
        6,
        jpeg(TABLES[:DQT_END], exif(), after=TABLES[DQT_END:]),
    ),
    "before the scan": (6, jpeg(TABLES[:SOS], exif(), after=TABLES[SOS:])),
    "fill before it": (6, jpeg(b"\xff\xff\xff", exif())),
    "much fill before it": (6, jpeg(JFIF, 5000 * b"\xff", exif())),
    "rubbish before it": (6, jpeg(JFIF, b"rubbish\xff\0", exif())),
    "zeros before it": (6, jpeg(JFIF, bytes(3000), exif())),
    "LONG": (6, jpeg(exif(entry(6, kind=LONG)))),
    "LONG, little endian": (8, jpeg(exif(entry(8, kind=LONG), order="<"))),
    "LONG above 65535": (1, jpeg(exif(entry(6 << 16, kind=LONG)))),
    "LONG, little endian, above 65535": (
        1,
        jpeg(exif(entry(65542, kind=LONG), order="<")),
    ),
    "signed": (6, jpeg(exif(entry(6, kind=SIGNED_SHORT)))),
    "signed LONG": (6, jpeg(exif(entry(6, kind=SIGNED_LONG)))),
    "signed LONG below 0": (1, jpeg(exif(entry(-6, kind=SIGNED_LONG)))),
    "BYTE": (1, jpeg(exif(entry(6 << 24, kind=1)))),
    "of no known type": (1, jpeg(exif(entry(6, kind=77)))),
    "value 0": (1, jpeg(exif(entry(0)))),
    "value 9": (1, jpeg(exif(entry(9)))),
    "count 2": (6, jpeg(exif(entry(6, count=2)))),
    "count 2, LONG": (1, jpeg(exif(entry(6, kind=LONG, count=2)))),
    "count 0": (1, jpeg(exif(entry(6, count=0)))),
    "directory at 58": (6, jpeg(exif(start=58))),
    "directory at 3,404": (6, jpeg(exif(start=3404))),
    "directory at 6,000": (6, jpeg(exif(start=6000, order="<"))),
    "directory behind the end": (
        1,
        jpeg(segment(0xE1, b"Exif\0\0MM\0*" + struct.pack(">I", 70000))),
    ),
    "directory far behind the end": (
        1,
        jpeg(segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xf0" + bytes(40))),
    ),
    "hundred entries": (
        6,
        jpeg(exif(*[entry(1, tag=t) for t in range(100)], entry(6))),
    ),
    "more entries than there are": (
        6,
        jpeg(exif()[:18] + b"\xff\xff" + exif()[20:]),
    ),
    "only the thumbnail's": (1, jpeg(only_thumbnail_turned())),
    "two entries, the first counts": (3, jpeg(exif(entry(3), entry(6)))),
    "two, the first counts": (6, jpeg(exif(), exif(entry(3)))),
    "two, the first without": (1, jpeg(exif(entry(5, tag=0x0128)), exif())),
    "truncated": (1, jpeg(segment(0xE1, exif()[4:24]))),
    "of six bytes": (1, jpeg(segment(0xE1, b"Exif\0\0"))),
    "of another order": (1, jpeg(segment(0xE1, b"Exif\0\0IM*\0" + bytes(30)))),
    "after the image": (1, PLAIN[:-2] + b"\xff\xd9" + exif()),
    "in a progressive one": (
        6,
        jpeg(exif(), after=encode(progressive=True)[2:]),
    ),
    "of a PNG": (6, encode(6, kind="PNG")),
    "of a PNG, little endian": (8, encode(8, kind="PNG", endian="<")),
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_orientation_equals_pillows(name):
    expected, encoded = HEADERS[name]
    assert read(encoded)[:3] == (40, 56, expected)
    found = image_decoding.decode(encoded).numpy()
    np.testing.assert_array_equal(found, by_pillow(encoded))


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def both_ways(encoded):
    """Whether the first look decides, what it found, and what a walk finds."""
    return *image_header._first_look(encoded), image_header._walk(encoded)


def is_decided(encoded):
    """Returns whether the first look decides; what it finds must be right."""
    decides, found, expected = both_ways(encoded)
    if decides:
        np.testing.assert_array_equal(found, expected)
    return bool(decides)


# What follows the directory in files of cameras: notes of the maker, and a
# preview, which is a JPEG.
NOTES = np.random.default_rng(0).bytes(9000) + encode(3)
ORDINARY = {
    "none": (1, PLAIN),
    "without JFIF": (1, jpeg()),
    "first": (6, jpeg(exif(after=NOTES))),
    "behind JFIF": (6, jpeg(JFIF, exif(after=NOTES))),
    "little endian": (8, jpeg(exif(entry(8), order="<", after=NOTES))),
    "LONG": (3, jpeg(exif(entry(3, kind=LONG), after=NOTES))),
    "no turn": (1, jpeg(exif(entry(1), after=NOTES))),
    "without the tag": (1, jpeg(exif(entry(3, tag=0x0128), after=NOTES))),
    "a dozen entries": (
        6,
        jpeg(exif(*[entry(1, tag=t) for t in range(12)], entry(6))),
    ),
    "of another order": (1, jpeg(segment(0xE1, b"Exif\0\0IM*\0" + NOTES))),
    "before XMP": (6, jpeg(exif(after=NOTES), segment(0xE1, XMP + b"<x/>"))),
    "before more": (6, jpeg(exif(), exif(entry(3)))),
    "before a comment": (6, jpeg(exif(), segment(0xFE, b"comment"))),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_a_first_look_suffices_for_ordinary_files(name):
    expected, encoded = ORDINARY[name]
    assert is_decided(encoded)
    assert read(encoded) == (40, 56, expected, 1)
    np.testing.assert_array_equal(
        image_decoding.decode(encoded), by_pillow(encoded)
    )


def test_what_a_first_look_decides_equals_a_walk():
    """Also in damaged and truncated files."""
    rng = np.random.default_rng(0)
    decided = sum(is_decided(encoded) for _, encoded in HEADERS.values())
    assert 20 < decided < len(HEADERS)
    for _, encoded in ORDINARY.values():
        scan = encoded.rindex(b"\xff\xda")
        for end in range(scan, scan + 12):
            is_decided(encoded[:end])
        for _ in range(40):
            damaged = bytearray(encoded)
            # Lengths, names and tables: what lies before and after notes.
            places = [*range(2, 60), *range(max(60, scan - 600), scan + 12)]
            for place in rng.choice(places, 2):
                damaged[place] = rng.choice([0, 6, 0xC0, 0xDA, 0xE1, 0xFF])
            decided += is_decided(bytes(damaged))
            decided += is_decided(bytes(damaged[: rng.integers(scan + 20)]))
    assert decided > 200


def moved_to_the_end(encoded):
    """A PNG with its chunk eXIf moved behind the last IDAT."""
    start = encoded.index(b"eXIf") - 4
    (length,) = struct.unpack(">I", encoded[start : start + 4])
    chunk = encoded[start : start + length + 12]
    rest = encoded.replace(chunk, b"")
    return rest[:-12] + chunk + rest[-12:]


def test_a_png_may_have_it_at_the_end():
    encoded = moved_to_the_end(encode(6, kind="PNG"))
    assert read(encoded).orientation == 6
    np.testing.assert_array_equal(
        image_decoding.decode(encoded), by_pillow(encoded)
    )


def test_what_xmp_says_does_not_count():
    """Pillow turns it; browsers do not, and neither do editors' own viewers."""
    xmp = b'<x:xmpmeta tiff:Orientation="6"/>'
    encoded = jpeg(segment(0xE1, XMP + xmp))
    assert by_pillow(encoded).shape[:2] == (56, 40)
    assert read(encoded) == (40, 56, 1, 1)


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("number", range(1, 9))
def test_every_turn_equals_pillows(number, endian):
    encoded = encode(number, endian=endian)
    assert read(encoded).orientation == number
    found = image_decoding.decode(encoded).numpy()
    assert found.shape[:2] == ((56, 40) if number >= 5 else (40, 56))
    np.testing.assert_array_equal(found, by_pillow(encoded))


OTHERS = st.sampled_from(
    [
        JFIF,
        segment(0xE1, XMP + b"<x/>"),
        segment(0xE2, ICC),
        segment(0xFE, exif()),
        segment(0xED, 900 * b"\xff\xda"),
        segment(0xEE, b""),
        b"\xff",
        b"\xff\xff\xff",
        bytes(7),
    ]
)
ENTRIES = st.builds(
    entry,
    st.integers(0, 9),
    tag=st.sampled_from([ORIENTATION, 0x0128]),
    kind=st.sampled_from([SHORT, LONG, SIGNED_SHORT, SIGNED_LONG]),
    count=st.sampled_from([1, 1, 1, 0, 2]),
)


def orientation_by_pillow(encoded):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged headers
        value = opened(encoded).getexif().get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    before=st.lists(OTHERS, max_size=5),
    entries=st.lists(ENTRIES, min_size=1, max_size=5),
    order=st.sampled_from("<>"),
    start=st.integers(8, 3000),
    between=st.lists(OTHERS, max_size=3),
)
def test_any_header_equals_pillows(before, entries, order, start, between):
    header = exif(*entries, order=order, start=start)
    encoded = jpeg(JFIF, *before, header, *between)
    expected = orientation_by_pillow(encoded)
    assert read(encoded)[:3] == (40, 56, expected)
    is_decided(encoded)


def test_the_same_in_a_pipeline():
    encoded = [encoded for _, encoded in HEADERS.values()]
    dataset = tf.data.Dataset.from_tensor_slices(encoded).map(
        image_decoding.decode
    )
    for one, found in zip(encoded, dataset, strict=True):
        np.testing.assert_array_equal(found, by_pillow(one))


def test_what_is_no_header_is_none():
    for encoded in (b"", b"Exif\0\0", b"\xff", b"\xff\xd8", exif(), b"GIF89a"):
        assert read(encoded) == (0, 0, 1, 1)
    for encoded in (PLAIN[:3], PLAIN[:60], png_header.PNG):
        assert read(encoded)[:3] == (0, 0, 1)
    in_a_comment = encode(comment=encode(6)[:200])
    assert read(in_a_comment) == (40, 56, 1, 1)


@pytest.mark.parametrize("name", ["behind JFIF", "of a PNG"])
def test_damaged_headers_fail_nothing(name):
    """Neither do headers of JPEGs and PNGs that are cut short."""
    _, whole = HEADERS[name]
    end = whole.index(b"\xff\xdb" if name == "behind JFIF" else b"IDAT")
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(2, end, 3):
            damaged[place] = rng.integers(256)
        found.add(read(bytes(damaged)).orientation)
        found.add(read(bytes(damaged[: rng.integers(end)])).orientation)
    assert found <= set(range(1, 9))
    assert {1, 6} <= found


def scans_of(encoded):
    """Number of scans, by a loop from the definition: T.81, section B.1.1."""
    place, scans = 2, 0
    while place < len(encoded) and encoded[place : place + 2] != b"\xff\xd9":
        scans += encoded[place + 1] == 0xDA
        place += 2 + int.from_bytes(encoded[place + 2 : place + 4], "big")
        while encoded[place] != 0xFF or encoded[place + 1] in (
            0,
            *range(0xD0, 0xD8),
        ):
            place += 1
    return scans


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "restart_marker_blocks": 2},
        {"restart_marker_blocks": 2},
        {"optimize": True, "quality": 3},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scans_equal_a_loop(mode, options):
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    encoded = toy_images.encode(
        Image.fromarray(noise).convert(mode), "JPEG", **options
    )
    expected = scans_of(encoded)
    assert (expected > 1) == ("progressive" in options)
    assert read(encoded) == (40, 56, 1, expected)
    # Neither what follows the image, nor what comments hold, is one.
    more = encoded + 99 * b"\xff\xda\0\x0c"
    more = more[:2] + segment(0xFE, 99 * b"\xff\xda\0\x0c") + more[2:]
    assert read(more).scans == expected


@pytest.mark.parametrize("copies", [1, 30, 1000])
def test_scans_behind_anything_count(copies):
    encoded = toy_images.with_scans(copies)
    assert read(encoded) == (16, 16, 1, scans_of(encoded))
    hidden = segment(0xFE, b"\xff\xd9" * 9)
    scan = encoded.rindex(b"\xff\xda")
    encoded = encoded[:scan] + hidden + encoded[scan:]
    assert read(encoded).scans == scans_of(encoded)


def test_sequential_scans_of_each_component_count():
    """A file of three scans, and of six."""
    encoded = toy_images.of_separate_scans()
    assert opened(encoded).size == (16, 16)
    assert read(encoded).scans == 3
    scan = encoded.index(b"\xff\xda")
    again = encoded[:-2] + encoded[scan:]
    assert read(again).scans == 6


def test_too_many_parts_are_not_counted():
    # Each holds what looks like a marker, so that a block has one of them.
    comments = segment(0xFE, b"\xff\xd9") * (2 * image_header.MOST_BLOCKS)
    progressive = encode(progressive=True)
    scan = progressive.rindex(b"\xff\xda")
    encoded = progressive[:scan] + comments + progressive[scan:]
    png = toy_images.GOOD["png"]
    chunks = toy_images.chunk(b"tEXt", b"k\0") * png_header.MOST_CHUNKS
    for many, kind in (
        (encoded, "JPEG"),
        (png[:33] + chunks + png[33:], "PNG"),
    ):
        reason = image_refusal.header_problem(many)
        assert reason == f"a {kind} of too many parts to read: save it again"


def test_all_of_it_in_an_order_of_chance():
    """Every order of four segments."""
    parts = (JFIF, segment(0xE2, ICC), segment(0xFE, b"c"), exif())
    for order in itertools.permutations(parts):
        assert read(jpeg(*order)) == (40, 56, 6, 1)
