"""Files are refused by their header, in one line."""

import time

import pytest
import tensorflow as tf
import toy_images
from toy_images import BAD, GOOD

from sare_tf.dataset import (
    image_decoding,
    image_header,
    image_limits,
    image_refusal,
)


@pytest.mark.parametrize("name", GOOD)
def test_a_usable_image_has_no_problem(name):
    assert image_refusal.header_problem(GOOD[name]) == ""


@pytest.mark.parametrize("name", BAD)
def test_why_a_file_is_refused(name):
    """By the header, or else for the data after it."""
    encoded, reason = BAD[name]
    why = image_refusal.why_not(encoded)
    assert why.startswith(reason)
    problem = image_refusal.header_problem(encoded)
    assert problem == ("" if why.endswith(("PNG", "JPEG")) else why)


def test_the_limits_are_within():
    def is_usable(*sizes, encoded=image_header.JPEG):
        header = image_header.Header(*map(tf.constant, sizes))
        return bool(image_refusal.is_usable(tf.constant(encoded), header))

    assert is_usable(8192, 8192, 6, 16)
    assert is_usable(4096, 8192, 6, 32)
    assert not is_usable(8192, 8192, 6, 17)
    assert is_usable(1, 1, 1, 1)
    assert not is_usable(8193, 8192, 6, 1)
    assert not is_usable(1, 1, 6, 33)
    assert not is_usable(8192, 0, 6, 1)
    assert not is_usable(2**31 - 1, 2**31 - 1, 6, image_limits.UNCOUNTED)


def test_large_images_may_have_fewer_scans():
    """Decoding 8192 x 8192 pixels in 32 scans took 3 s."""
    encoded = toy_images.jpeg_that_says(
        8192, 8192, encoded=toy_images.with_scans(20)
    )
    assert image_refusal.header_problem(encoded).startswith(
        "a JPEG of 8192 x 8192 pixels and 26 scans, which takes too long"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="limits"):
        image_decoding.decode(encoded)
    smaller = toy_images.jpeg_that_says(
        4096, 8192, encoded=toy_images.with_scans(20)
    )
    assert image_refusal.header_problem(smaller) == ""


def test_a_jpeg_of_too_many_bytes_is_refused():
    """Decoding 287 MB in 32 scans took 10 s."""
    most = image_refusal.MOST_JPEG_BYTES
    good = GOOD["jpeg"]
    whole = good.ljust(most, b"\0")
    assert image_refusal.header_problem(whole) == ""
    assert (
        image_decoding.decode(whole).shape == image_decoding.decode(good).shape
    )
    reason = "a JPEG of more than 64 MiB, which takes too long to decode"
    assert image_refusal.header_problem(whole + b"\0").startswith(reason)
    with pytest.raises(tf.errors.InvalidArgumentError, match="limits"):
        image_decoding.decode(whole + b"\0")
    # What a PNG says is bounded by its pixels.
    assert image_refusal.header_problem(GOOD["png"].ljust(most + 1)) == ""


def test_many_scans_are_refused_at_once():
    """Decoding them took 14 s."""
    encoded = toy_images.jpeg_that_says(
        8192, 8192, encoded=toy_images.with_scans(2000)
    )
    begin = time.process_time()
    reason = image_refusal.header_problem(encoded)
    assert time.process_time() - begin < 2
    assert reason.startswith("a JPEG of more than 32 scans, which takes too")
