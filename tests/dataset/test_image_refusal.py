"""Files are refused by their header, in one line."""

import pytest
from toy_images import BAD, GOOD

from sare_tf.dataset import image_refusal


def test_the_header_of_what_is_no_image_has_no_size():
    for encoded in (b"", b"\xff\xd8", b"\x89PNG\r\n", BAD["webp"][0]):
        assert image_refusal.stored_size(encoded).numpy().tolist() == [0, 0]


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
