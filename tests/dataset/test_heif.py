"""HEIC photographs: what they are, how they are read, and what else is said."""

import io
import struct
import sys

import numpy as np
import pytest
import toy_images
import toy_search
from PIL import Image

from sare_tf import build_records
from sare_tf.dataset import heif, image_decoding, image_limits
from sare_tf.dataset.readers import exif_photos
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.search import photo_files


def _ftyp(major, *compatible):
    brands = b"".join([major, b"\0\0\0\0", *compatible])
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands


@pytest.mark.parametrize(
    ("first_bytes", "expected"),
    [
        (_ftyp(b"heic", b"mif1", b"heic"), True),
        (_ftyp(b"mif1", b"heic", b"mif1"), True),
        (_ftyp(b"mif1", b"avif"), False),
        (_ftyp(b"avif", b"mif1"), False),
        (_ftyp(b"isom", b"mp42"), False),
        # A brand after the end of its box is none.
        (_ftyp(b"isom", b"mp42") + b"heic", False),
        (b"\xff\xd8\xff\xe0" + b"heic" * 9, False),
        (b"\0\0\0\x18ftyp", False),
        (b"", False),
    ],
)
def test_recognised_by_its_brand(first_bytes, expected):
    assert heif.is_heif(first_bytes) == expected


def test_other_files_are_left_as_they_are():
    for encoded in (toy_search.jpeg(1, 1), b"", b"text"):
        assert heif.as_jpeg(encoded) is encoded


@pytest.fixture
def without_decoder(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def _dataset(root, encoded):
    """One image in each role, and a HEIC in the database."""
    images = root / "images" / "test"
    for role, place in (("database", 1), ("queries", 1)):
        (images / role).mkdir(parents=True)
        name = f"@{500_000 + place:.2f}@4500000.00@17@T@@@@@@@@@@@"
        (images / role / f"{name}.jpg").write_bytes(toy_search.jpeg(place, 0))
    name = "@500300.00@4500000.00@17@T@@@@@@@@@@@"
    (images / "database" / f"{name}.HEIC").write_bytes(encoded)
    return root


def _build(root):
    return build_records.run(
        RecordOptions(dataset=root, records=root / "records", reader="at_names")
    )


def test_refused_with_the_command_without_the_extra(tmp_path, without_decoder):
    encoded = _ftyp(b"heic", b"mif1") + bytes(99)
    words = r'pip install "sare_tf\[heif\]".*heif-convert PHOTO.heic'
    path = tmp_path / "a.heic"
    path.write_bytes(encoded)
    with pytest.raises(ValueError, match=words):
        photo_files.read(path)
    with pytest.raises(ValueError, match=words):
        exif_photos.parse(path, radius_m=25.0)
    records = _build(_dataset(tmp_path / "data", encoded))
    assert len(Records(records).manifest) == 2
    rejected = (records / "rejected.csv").read_text()
    assert ".HEIC" in rejected
    assert "heif-convert" in rejected


@pytest.fixture
def pixels():
    """A gradient with one corner in red, 96 high and 64 wide."""
    rows, columns = np.mgrid[:96, :64]
    image = np.stack([rows * 2, columns * 3, rows + columns], axis=2)
    image[:24, :24] = [250, 10, 10]
    return image.astype(np.uint8)


def test_becomes_a_jpeg_of_the_same_picture(pixels, tmp_path):
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(toy_images.heic(pixels))
    encoded = photo_files.read(path)
    decoded = image_decoding.pixels(encoded)
    assert decoded.shape == (96, 64, 3)
    assert np.abs(decoded.astype(int) - pixels).mean() < 3
    assert photo_files.expand(str(tmp_path)) == [path]
    # Whatever its name is.
    misnamed = tmp_path / "b.jpg"
    misnamed.write_bytes(path.read_bytes())
    assert photo_files.read(misnamed) == encoded


def test_is_turned_upright_once(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: rotate by 90 degrees.
    encoded = heif.as_jpeg(toy_images.heic(pixels, exif=exif.tobytes()))
    with Image.open(io.BytesIO(encoded)) as converted:
        assert not converted.getexif()
    decoded = image_decoding.pixels(encoded).astype(int)
    upright = np.rot90(pixels, -1)
    assert decoded.shape == upright.shape
    assert np.abs(decoded - upright).mean() < 3


def test_damage_and_size_are_said(pixels, monkeypatch):
    encoded = toy_images.heic(pixels)
    with pytest.raises(ValueError, match="damaged or truncated HEIC"):
        heif.as_jpeg(encoded[: len(encoded) // 2])
    monkeypatch.setattr(heif, "MOST_PIXELS", 96 * 64 - 1)
    with pytest.raises(ValueError, match="64 x 96 are more than 6,143 pixels"):
        heif.as_jpeg(encoded)
    assert image_limits.MOST_PIXELS == 8192 * 8192


def test_records_hold_what_locate_embeds(pixels, tmp_path):
    encoded = toy_images.heic(pixels)
    records = Records(_build(_dataset(tmp_path / "data", encoded)))
    (name,) = [
        name for name in records.manifest["image_id"] if name.endswith("HEIC")
    ]
    assert records.read_named([name]) == [heif.as_jpeg(encoded)]
    row = records.manifest.set_index("image_id").loc[name]
    assert (row["height"], row["width"]) == (96, 64)


def test_position_is_read_from_its_header(pixels, tmp_path):
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps.update({1: "N", 2: (40.0, 26.0, 24.0), 3: "W", 4: (79.0, 59.0, 24.0)})
    exif[0x8825] = gps
    path = tmp_path / "a.heic"
    path.write_bytes(toy_images.heic(pixels, exif=exif.tobytes()))
    columns, doubt = exif_photos.parse(path, radius_m=25.0)
    assert columns["degrees"] == pytest.approx((40.44, -79.99))
    assert doubt == ""
