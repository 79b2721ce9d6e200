"""Mining against a loop written from the rule in plain numpy."""

import numpy as np
import pytest

from sare_tf import mining


def _unit(rng, *shape):
    values = rng.normal(size=shape).astype(np.float32)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture
def city():
    """12 queries; 40 database images, four of each of ten places."""
    rng = np.random.default_rng(0)
    places = np.repeat(np.arange(10), 4)
    query_places = np.arange(12) % 10
    same = [np.flatnonzero(places == place) for place in query_places]
    return {
        "queries": _unit(rng, 12, 8),
        "database": _unit(rng, 40, 8),
        "same": same,
    }


def _mine(city, **changes):
    arguments = {
        "queries": np.arange(12),
        "potential_positives": city["same"],
        "same_place": city["same"],
        "num_negatives": 3,
        "negative_pool": 1000,
        "remembered": np.full((12, 3), -1),
        "seed": 0,
        **changes,
    }
    return mining.mine(city["queries"], city["database"], **arguments)


def test_whole_database_gives_nearest_positive_and_hardest_negatives(city):
    mined = _mine(city, block=5)
    for q in range(12):
        distances = np.array(
            [
                ((city["queries"][q] - row) ** 2).sum()
                for row in city["database"]
            ]
        )
        positive = min(city["same"][q], key=lambda row: distances[row])
        others = [row for row in range(40) if row not in city["same"][q]]
        hardest = sorted(others, key=lambda row: distances[row])[:3]
        assert mined.positives[q] == positive
        assert mined.negatives[q].tolist() == hardest
        np.testing.assert_allclose(
            mined.negative_distances[q], distances[hardest], atol=1e-5
        )
        np.testing.assert_allclose(
            mined.positive_distances[q], distances[positive], atol=1e-5
        )


def test_pool_is_random_seeded_and_never_of_the_same_place(city):
    first = _mine(city, negative_pool=6)
    again = _mine(city, negative_pool=6)
    other = _mine(city, negative_pool=6, seed=1)
    np.testing.assert_array_equal(first.negatives, again.negatives)
    assert (first.negatives != other.negatives).any()
    for q in range(12):
        assert not set(first.negatives[q]) & set(city["same"][q])
        assert len(set(first.negatives[q])) == 3


def test_every_negative_can_be_drawn(city):
    drawn = {
        int(row)
        for seed in range(60)
        for row in _mine(city, negative_pool=3, seed=seed).negatives[0]
    }
    assert drawn == set(range(40)) - set(city["same"][0])


def test_order_of_queries_does_not_change_a_tuple(city):
    forward = _mine(city, negative_pool=6)
    backward = _mine(city, negative_pool=6, queries=np.arange(12)[::-1])
    np.testing.assert_array_equal(forward.negatives, backward.negatives[::-1])


def test_remembered_negatives_compete_with_the_next_pool(city):
    hardest = _mine(city).negatives
    remembered = hardest.copy()
    mined = _mine(city, negative_pool=3, remembered=remembered, seed=5)
    np.testing.assert_array_equal(mined.negatives, hardest)


def test_remembered_is_updated_for_mined_queries_only(city):
    remembered = np.full((12, 3), -1)
    mined = _mine(city, queries=np.array([4]), remembered=remembered)
    assert remembered[4].tolist() == mined.negatives[0].tolist()
    assert (remembered[np.arange(12) != 4] == -1).all()


def test_violating_is_the_share_nearer_than_the_positive():
    mined = mining.Mined(
        queries=np.arange(2),
        positives=np.zeros(2, int),
        negatives=np.zeros((2, 2), int),
        positive_distances=np.array([0.5, 0.5], np.float32),
        negative_distances=np.array([[0.4, 0.6], [0.7, 0.8]], np.float32),
    )
    assert mined.violating == 0.25


def test_queries_without_a_positive_are_left_out():
    near = [np.array([0]), np.array([], int), np.array([1])]
    usable = mining.check_places(near, near, database_size=5, num_negatives=2)
    assert usable.tolist() == [0, 2]


def test_no_usable_query_is_an_error():
    nothing = [np.array([], int)] * 3
    with pytest.raises(ValueError, match="none with one"):
        mining.check_places(nothing, nothing, database_size=5, num_negatives=2)


def test_too_few_negatives_name_the_query():
    near = [np.array([0]), np.array([0, 1, 2])]
    with pytest.raises(ValueError, match="query 1 has 2 of 5"):
        mining.check_places(near, near, database_size=5, num_negatives=3)
