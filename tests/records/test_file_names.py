"""Names of files for images of records."""

import pandas as pd
import pytest

from sare_tf.records import file_names


@pytest.mark.parametrize(
    ("image_id", "name", "extension"),
    [
        ("a/b.jpg", "a/b.jpg", ".jpg"),
        ("a/B.JPEG", "a/B.JPEG", ".jpeg"),
        ("c.png", "c.png", ".png"),
        # A part of an image, and one of several copies of a file.
        ("c.jpg#xywh=1,2,3,4", "c.jpg_xywh=1,2,3,4.png", ".png"),
        ("c.JPG#2", "c.JPG_2.jpg", ".jpg"),
    ],
)
def test_names_of_files(image_id, name, extension):
    table = pd.DataFrame({"image_id": [image_id]})
    assert file_names.safe_names(table) == [name]
    assert file_names.extension(image_id) == extension
