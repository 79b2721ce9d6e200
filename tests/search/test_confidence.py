"""The confidence of an answer against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from sare_tf.search import confidence


def _database(**columns):
    rows = {
        # Rows 1 and 2 are 25 and 25.5 m from row 0; row 3 stands where row 0
        # does, in another zone, row 4 in another band of its zone.
        "utm_east_m": [0.0, 25.0, 25.5, 0.0, 0.0, np.nan, np.nan],
        "utm_north_m": [0.0, 0.0, 0.0, 0.0, 3.0, np.nan, np.nan],
        "utm_zone": ["17T", "17T", "17T", "18T", "17S", "17T", "17T"],
        "place_id": ["a", "b", "a", "", "", "a", ""],
    }
    return pd.DataFrame({**rows, **columns})


def test_one_place_is_near_or_has_one_name():
    places = confidence.Places(_database(place_id=[""] * 7), radius_m=25)
    found = np.array([[0, 1, 2, 3, 4, 5], [5, 6, 0, 1, 2, 3]])
    same = places.same_as_first(found)
    assert same.tolist() == [
        [True, True, False, False, True, False],
        # Nothing is known of where row 5 is.
        [True, False, False, False, False, False],
    ]
    named = confidence.Places(_database(), radius_m=25)
    same = named.same_as_first(found)
    assert same.tolist() == [
        [True, True, True, False, True, True],
        [True, False, True, False, True, False],
    ]


def test_no_neighbour_is_no_other_place():
    places = confidence.Places(_database(), radius_m=25)
    found = np.array([[3, 6, -1]])
    assert places.same_as_first(found).tolist() == [[True, False, True]]


@pytest.mark.parametrize(
    ("squared", "same", "count", "expected"),
    [
        # 1 - sqrt(0.16 / 0.64) = 1 - 0.4 / 0.8.
        ([0.16, 0.25, 0.64], [1, 1, 0], 9, 0.5),
        ([0.16, 0.16, 0.64], [1, 0, 0], 9, 0.0),
        ([0.0, 0.5, 0.64], [1, 0, 0], 9, 1.0),
        # Two images that are the query, at different places.
        ([0.0, 0.0, 0.64], [1, 0, 0], 9, 0.0),
        # At least 1 - sqrt(0.16 / 0.64): the last stands for what is farther.
        ([0.16, 0.25, 0.64], [1, 1, 1], 9, 0.5),
        ([0.16, 0.64, np.inf], [1, 1, 1], 9, 0.5),
        # The whole database is one place.
        ([0.16, 0.25, 0.64], [1, 1, 1], 3, np.nan),
        ([0.16], [1], 1, np.nan),
        ([0.16], [1], 2, 0.0),
    ],
)
def test_by_hand(squared, same, count, expected):
    found = confidence.of_neighbours(
        np.array([squared], np.float32), np.array([same], bool), count=count
    )
    np.testing.assert_allclose(found, [expected], rtol=0, atol=1e-7)


def test_a_query_that_is_in_the_database():
    rows = np.array([[4, 2, 7], [2, 4, 7], [7, 2, 4], [2, 3, 7]])
    squared = np.array([[0.0, 0.1, 0.2]] * 4)
    own = np.array([4, 4, 4, -1])
    kept, distances = confidence.without(rows, squared, own)
    assert kept.tolist() == [[2, 7, -1], [2, 7, -1], [7, 2, -1], [2, 3, 7]]
    inf = np.inf
    assert distances.tolist() == [
        *([0.1, 0.2, inf], [0.0, 0.2, inf], [0.0, 0.1, inf], [0.0, 0.1, 0.2])
    ]
    # A database of 3 images, of which 2 are left for the first three queries.
    same = np.array([[True, True, True]] * 4)
    of_all = confidence.of_neighbours(
        distances, same, count=np.array([2, 3, 3, 4])
    )
    np.testing.assert_allclose(of_all, [np.nan, 1.0, 1.0, 1.0])
