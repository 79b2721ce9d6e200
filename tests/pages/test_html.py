"""Pictures of the pages."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from sare_tf.pages import html


def _encoded(value=90, size=(40, 30), kind="JPEG"):
    encoded = io.BytesIO()
    Image.new("RGB", size, (value, 120, 60)).save(encoded, kind)
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"), [((640, 480), (240, 180)), ((100, 80), (100, 80))]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_thumbnail_keeps_colour_and_proportion(size, expected, kind):
    picture = html.Picture(encoded=_encoded(200, size, kind), name="a")
    kind, encoded = html.thumbnail(picture).split(",")
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert image.size == expected
    difference = np.asarray(image).astype(int) - [200, 120, 60]
    assert np.abs(difference).max() <= 4


def test_a_large_picture_is_upright_and_has_no_headers():
    exif = Image.Exif()
    # Turned a quarter to the left, with a position.
    exif[0x0112] = 6
    exif[0x8825] = {1: "N", 2: (40.0, 30.0, 0.0)}
    encoded = io.BytesIO()
    Image.new("RGB", (2400, 1200)).save(encoded, "JPEG", exif=exif)
    large = html.enlarged(html.Picture(encoded=encoded.getvalue(), name="a"))
    with Image.open(io.BytesIO(large)) as image:
        # Columns x rows after the turn; at most 1600 columns.
        assert image.size == (1200, 2400)
        assert not image.getexif()
    wide = html.Picture(encoded=_encoded(size=(3200, 100)), name="a")
    with Image.open(io.BytesIO(html.enlarged(wide))) as image:
        assert image.size == (1600, 50)


@pytest.mark.parametrize("encoded", [b"", b"not an image", _encoded()[:200]])
def test_a_picture_that_cannot_be_decoded(encoded):
    picture = html.Picture(encoded=encoded, name="broken.jpg")
    with pytest.raises(ValueError, match="an image. Received: broken.jpg"):
        html.thumbnail(picture)
