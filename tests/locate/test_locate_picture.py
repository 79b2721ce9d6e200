"""locate --picture: the drawing, and the images that it shows."""

import numpy as np
import pytest
import toy_search
from PIL import Image
from toy_located import answers_of

from sare_tf import index
from sare_tf.pages import locate_picture
from sare_tf.runtime import run_lock
from sare_tf.search.gallery import Gallery


def test_picture_shows_queries_and_framed_matches(
    inputs, photos, records, tmp_path
):
    out = tmp_path / "out.png"
    (tmp_path / "text.jpg").write_text("not an image")
    money = tmp_path / "$five$ and much more of a long name.jpg"
    money.write_bytes(toy_search.jpeg(5, 99))
    chosen = [photos[0], tmp_path / "text.jpg", money]
    answers_of(inputs, chosen, k=4, picture=out, records=records)
    drawn = np.asarray(Image.open(out).convert("RGB")).astype(int)
    # 2 rows of a query and 4 matches, of 2.2 inches and 120 dots.
    assert drawn.shape[1] == 5 * 264
    green, grey = ([26, 143, 76], [154, 166, 178])

    def columns(colour):
        near = (np.abs(drawn - colour).max(axis=2) < 3).any(axis=0)
        return set((np.flatnonzero(near) // 264).tolist())

    # 3 images of a place are green, the fourth match is of another.
    assert {1, 2, 3} <= columns(green)
    assert 4 in columns(grey)
    assert not {0, 1} & columns(grey)
    # The colours of both photographs are there.
    for path in (photos[0], money):
        middle = np.asarray(Image.open(path))[4, 4].astype(int)
        assert (np.abs(drawn - middle).max(axis=2) < 12).sum() > 500
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_gallery_knows_only_its_images(inputs, records):
    opened = index.Index.open(inputs["index"])
    gallery = Gallery(records, opened)
    name = opened.manifest["image_id"].iloc[7]
    encoded, nothing, again = gallery.read([name, "nothing", name])
    assert nothing is None
    photos = records.parent / "photos" / "images"
    assert encoded == again == (photos / name).read_bytes()


def test_picture_that_another_run_draws(inputs, photos, records, tmp_path):
    out = tmp_path / "out.png"
    with (
        run_lock.only_run(out),
        pytest.raises(
            BlockingIOError, match="out.png', which is being written"
        ),
    ):
        answers_of(inputs, photos, k=1, picture=out, records=records)
    assert not out.exists()


def test_picture_of_an_image_that_is_not_there(inputs, photos, tmp_path):
    class Empty:
        def read(self, names):
            return [None] * len(names)

    ((_, answer),) = answers_of(inputs, photos[:1], k=2)
    rows = [("a.jpg", photos[0].read_bytes(), answer)]
    locate_picture.write(tmp_path / "a.png", rows, Empty())
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.size[0] == 3 * 264
