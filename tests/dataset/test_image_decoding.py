"""Decoding of what photographs turn out to be: the same everywhere, or not."""

import io

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import toy_search
from PIL import Image
from toy_images import (
    BAD,
    DEEP,
    DEEP_GREY,
    DEEP_RGB,
    GOOD,
    TURNED,
    TURNED_LATE,
    TURNED_PNG,
    png,
)

from sare_tf import build_records
from sare_tf.dataset import image_decoding, image_refusal
from sare_tf.records import records
from sare_tf.records.options import RecordOptions

SIZE = {"height": 4, "width": 4}
UPRIGHTED = {"first": TURNED, "late": TURNED_LATE, "png": TURNED_PNG}


@pytest.mark.parametrize("name", GOOD)
def test_equals_pillow(name):
    encoded = GOOD[name]
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    np.testing.assert_array_equal(image_decoding.pixels(encoded), expected)


def test_of_16_bits_the_high_byte_is_taken():
    grey = np.repeat((DEEP_GREY >> 8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(
        image_decoding.pixels(DEEP["deep_grey"]), grey
    )
    np.testing.assert_array_equal(
        image_decoding.pixels(DEEP["deep_rgb"]), DEEP_RGB >> 8
    )


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (GOOD["jpeg"], (40, 56, [])),
        (GOOD["png"], (40, 56, [])),
        (GOOD["cmyk"], (40, 56, ["cmyk"])),
        (GOOD["animated_png"], (40, 56, ["animated"])),
        (DEEP["deep_grey"], (6, 8, ["16_bit"])),
        (TURNED, (56, 40, ["turned"])),
        (TURNED_LATE, (56, 40, ["turned"])),
        (TURNED_PNG, (56, 40, ["turned"])),
    ],
)
def test_what_is_special(encoded, expected):
    assert image_decoding.examine(encoded) == expected


@pytest.mark.parametrize("name", BAD)
def test_why_an_image_cannot_be_decoded(name):
    encoded, reason = BAD[name]
    with pytest.raises(ValueError, match="^" + reason.replace(".", r"\.")) as e:
        image_decoding.pixels(encoded)
    assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="^" + reason.replace(".", r"\.")):
        image_decoding.examine(encoded)


def test_a_part_of_an_image():
    image = np.arange(4 * 5 * 3).reshape(4, 5, 3)
    part = image_decoding.cut(image, (-2.0, 1.4, 2.6, 9.0))
    np.testing.assert_array_equal(part, image[1:4, 0:3])
    with pytest.raises(ValueError, match="outside the image, 5 x 4 pixels"):
        image_decoding.cut(image, (5, 0, 9, 9))


def test_the_largest_image_there_may_be():
    """Refused for its data alone, which are not there."""
    for height, width in ((8192, 8192), (1, 1 << 26)):
        assert height * width == image_refusal.MOST_PIXELS
    with pytest.raises(ValueError, match="^a damaged or truncated PNG"):
        image_decoding.pixels(png(8192, 8192))
    with pytest.raises(ValueError, match="^8193 x 8192 are more than"):
        image_decoding.pixels(png(8192, 8193))


@pytest.fixture(scope="module")
def every():
    usable = GOOD | DEEP | UPRIGHTED
    return usable | {name: encoded for name, (encoded, _) in BAD.items()}


@pytest.fixture(scope="module")
def trained_on(every):
    """name -> pixels as training loads them; absent where that fails."""
    load = tf.function(lambda encoded: image_decoding.load(encoded, **SIZE))
    found = {}
    for name, encoded in every.items():
        try:
            found[name] = load(tf.constant(encoded)).numpy()
        except tf.errors.InvalidArgumentError:
            assert name in BAD
    return found


def test_training_and_export_decode_alike(tmp_path, every, trained_on):
    path = toy_search.export(tmp_path / "export") / "1"
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    served = serve(image_bytes=tf.constant(list(every.values())))
    assert len(trained_on) == len(GOOD | DEEP | UPRIGHTED)
    for name, descriptor, valid in zip(
        every, served["descriptor"].numpy(), served["valid"], strict=True
    ):
        assert bool(valid) == (name in trained_on), name
        if valid:
            pixels = trained_on[name].astype(np.float64).reshape(-1)
            pixels -= pixels.mean()
            pixels /= np.linalg.norm(pixels)
            # float32 of 48 numbers below 1.
            np.testing.assert_allclose(descriptor, pixels, atol=1e-6)


def test_the_builder_lists_what_it_cannot_use(tmp_path):
    folder = tmp_path / "photos/test/database/a"
    folder.mkdir(parents=True)
    for name, encoded in GOOD.items():
        (folder / f"{name}.jpg").write_bytes(encoded)
    for name, (encoded, _) in BAD.items():
        (folder / f"{name}.png").write_bytes(encoded)
    out = build_records.run(
        RecordOptions(
            dataset=tmp_path / "photos",
            records=tmp_path / "records",
            reader="place_folders",
        )
    )
    opened = records.Records(out)
    kept = opened.manifest["image_id"].str.rpartition("/")[2]
    assert sorted(kept) == sorted(f"{name}.jpg" for name in GOOD)
    rejected = pd.read_csv(out / "rejected.csv")
    reasons = dict(zip(rejected["path"], rejected["reason"], strict=True))
    assert len(reasons) == len(BAD)
    for name, (_, reason) in BAD.items():
        # The builder could convert it, with an extra.
        reason = reason.removeprefix("not a JPEG or PNG image: a HEIC")
        assert reason in reasons[f"test/database/a/{name}.png"]
