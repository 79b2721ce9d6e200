"""Names of images that layouts cannot hold; see test_export_vectors, too."""

import numpy as np
import pytest
import toy_manifest
import toy_search

from sare_tf.records.options import VECTOR_LAYOUTS
from sare_tf.search import vector_layouts


def matches(query, database):
    """One query, and the database images, which all match."""
    sides = [
        vector_layouts.Side(
            name,
            toy_manifest.make(
                {"image_id": image_id, "split": "test", "role": role}
                for image_id in image_ids
            ),
            toy_search.unit(1, len(image_ids), 4),
        )
        for name, role, image_ids in (
            ("queries", "query", [query]),
            ("database", "database", database),
        )
    ]
    rows = np.arange(len(database))[None]
    distances = np.linspace(0, 1, len(database), dtype=np.float32)[None]
    return vector_layouts.Matches(*sides, rows, distances)


@pytest.mark.parametrize(
    ("layout", "name", "message"),
    [
        ("hloc", "a b.jpg", "without white space.*hloc. Received: 'a b.jpg'"),
        ("kapture", "a,b.jpg", "without a comma for the layout kapture"),
        ("msls", "folder/a\tb.jpg", r"without white space.*Received: .*a\\tb"),
    ],
)
@pytest.mark.parametrize("side", ["query", "database"])
def test_letters_that_a_layout_cannot_hold(
    tmp_path, layout, name, message, side
):
    names = {"query": "q.jpg", "database": ["c.jpg", "d.jpg"]}
    names[side] = name if side == "query" else ["c.jpg", name]
    with pytest.raises(ValueError, match=message):
        vector_layouts.write(layout, tmp_path, matches(**names))


def test_keys_that_are_not_unique(tmp_path):
    twice = matches("q.jpg", ["one/a.jpg", "b.jpg", "two/a.jpg"])
    with pytest.raises(ValueError, match="Received: a 2 times in the database"):
        vector_layouts.write("msls", tmp_path, twice)


@pytest.mark.parametrize("layout", VECTOR_LAYOUTS)
def test_all_layouts_hold_plain_names(tmp_path, layout):
    vector_layouts.write(layout, tmp_path, matches("q.jpg", ["c.jpg", "d.jpg"]))
    assert any(tmp_path.iterdir())


def test_pairs_are_in_the_order_of_the_matches():
    pairs = list(matches("q.jpg", ["c.jpg", "d.jpg"]).pairs())
    assert pairs == [("q.jpg", "c.jpg", 0.0), ("q.jpg", "d.jpg", 1.0)]
