"""Which images follow each other, worked out by hand."""

import numpy as np
import pytest

from sare_tf.dataset import manifest
from sare_tf.sequences import clips
from sare_tf.sequences.clips import Clips


def _names(images, found):
    ids = images["image_id"].to_numpy(object)[found.order]
    return [ids[span].tolist() for span in found.spans()]


def test_numbers_in_names_order_the_images_of_a_folder():
    images = manifest.make(
        image_id=["b/x10.jpg", "a/2.jpg", "b/x9.jpg", "a/10.jpg", "a/3.jpg"]
    )
    found = Clips.of(images)
    assert _names(images, found) == [
        # A step of 7 is less than 3 of the usual ones, the median of 1 and 7.
        ["a/2.jpg", "a/3.jpg", "a/10.jpg"],
        ["b/x9.jpg", "b/x10.jpg"],
    ]
    assert found.unordered == 0


def test_a_gap_of_more_than_three_steps_cuts_a_clip():
    frames = [5, 7, 9, 15, 22, 24]  # steps 2, 2, 6, 7, 2; the median is 2
    images = manifest.make(
        image_id=[f"{n}.jpg" for n in "fedcba"],
        sequence_id="drive",
        frame=frames,
    )
    found = Clips.of(images)
    assert [found.frames[s].tolist() for s in found.spans()] == [
        [5, 7, 9, 15],
        [22, 24],
    ]
    assert found.steps.tolist() == [2, 2]
    assert clips.describe(found) == "2 sequences of 2 to 4 images"


def test_sequences_go_before_folders_and_frames_before_names():
    images = manifest.make(
        image_id=["a/1.jpg", "b/2.jpg", "a/3.jpg"],
        sequence_id=["s", "s", "t"],
        frame=[8, 7, 0],
    )
    assert _names(images, Clips.of(images)) == [
        ["b/2.jpg", "a/1.jpg"],
        ["a/3.jpg"],
    ]
    assert clips.describe(Clips.of(images)) == (
        "1 sequence of 2 images and 1 image on its own"
    )


def test_timestamps_to_the_second():
    stamps = ["2016-07-31T23:59:59", "20160801000001", "2016-08-01 00:00:00"]
    images = manifest.make(image_id=list("xyz"), timestamp=stamps)
    found = Clips.of(images)
    assert _names(images, found) == [["x", "z", "y"]]
    assert np.diff(found.frames).tolist() == [1, 1]


@pytest.mark.parametrize(
    "columns",
    [
        {"image_id": ["left.jpg", "right.jpg", "top.jpg"]},
        {"image_id": ["9/p.jpg", "9/q.jpg", "9/r.jpg"]},
        # Two cameras, both with frame 1.
        {"image_id": ["u", "v", "w"], "frame": [1, 1, 2]},
        # Only the month.
        {"image_id": ["u", "v", "w"], "timestamp": ["201607", "201608", ""]},
    ],
)
def test_images_without_an_order_are_on_their_own(columns):
    found = Clips.of(manifest.make(**columns))
    assert np.diff(found.starts).tolist() == [1, 1, 1]
    assert found.unordered == 3
    assert clips.describe(found) == "3 images on their own"
