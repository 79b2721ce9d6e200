"""Mining against a loop written from the rule in plain numpy."""

import numpy as np
import pytest

from sare_tf.training import hard_negatives
from sare_tf.training.hard_negatives import Candidates


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


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks that 12 queries and 40 images do not fill evenly."""
    monkeypatch.setattr(hard_negatives, "QUERY_BLOCK", 5)
    monkeypatch.setattr(hard_negatives, "DATABASE_BLOCK", 7)
    monkeypatch.setattr(hard_negatives, "_CHOICE_BLOCK", 2)


def _mine(city, *, queries=None, dtype=np.float32, **changes):
    queries = np.arange(12) if queries is None else queries
    arguments = {
        "queries": queries,
        "candidates": Candidates(city["same"], city["same"]),
        "negative_pool": 0,
        "remembered": np.full((12, 3), -1),
        "seed": 0,
        **changes,
    }
    return hard_negatives.mine(
        city["queries"][queries].astype(dtype),
        city["database"].astype(dtype),
        **arguments,
    )


def _squared_distances(query, database):
    return np.array([((query - row) ** 2).sum() for row in database])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_whole_database_gives_nearest_positive_and_hardest_negatives(
    city, small_blocks, dtype
):
    mined = _mine(city, dtype=dtype)
    for q in range(12):
        distances = _squared_distances(city["queries"][q], city["database"])
        positive = min(city["same"][q], key=lambda row: distances[row])
        others = [row for row in range(40) if row not in city["same"][q]]
        hardest = sorted(others, key=lambda row: distances[row])[:3]
        assert mined.positives[q] == positive
        assert mined.negatives[q].tolist() == hardest
        # float16 rounds a descriptor by up to 2 ** -11 of its length.
        tolerance = 1e-5 if dtype == np.float32 else 4 * 2**-11
        np.testing.assert_allclose(
            mined.negative_distances[q], distances[hardest], atol=tolerance
        )
        np.testing.assert_allclose(
            mined.positive_distances[q], distances[positive], atol=tolerance
        )


def test_a_pool_as_large_as_the_database_is_the_whole(city):
    whole, large = _mine(city), _mine(city, negative_pool=36)
    np.testing.assert_array_equal(whole.negatives, large.negatives)


def test_pool_is_random_seeded_and_never_of_the_same_place(city):
    first = _mine(city, negative_pool=6)
    again = _mine(city, negative_pool=6)
    other = _mine(city, negative_pool=6, seed=1)
    np.testing.assert_array_equal(first.negatives, again.negatives)
    assert (first.negatives != other.negatives).any()
    for q in range(12):
        assert not set(first.negatives[q]) & set(city["same"][q])
        assert len(set(first.negatives[q])) == 3


def test_every_negative_is_drawn_equally_often(city):
    """1,200 pools of 6 of 36: 200 times each, standard deviation 13."""
    count = 1200
    mined = hard_negatives.mine(
        np.repeat(city["queries"][:1], count, axis=0),
        city["database"],
        queries=np.arange(count),
        candidates=Candidates(*[city["same"][:1] * count] * 2),
        negative_pool=6,
        remembered=np.full((count, 6), -1),
        seed=0,
    )
    drawn = np.bincount(mined.negatives.reshape(-1), minlength=40)
    assert drawn[city["same"][0]].tolist() == [0, 0, 0, 0]
    others = np.delete(drawn, city["same"][0])
    assert others.sum() == 7200
    assert (abs(others - 200) < 5 * 13).all()


def test_a_tuple_depends_on_its_query_alone(city, small_blocks):
    forward = _mine(city, negative_pool=6)
    some = np.array([11, 2, 7])
    other = _mine(city, negative_pool=6, queries=some)
    np.testing.assert_array_equal(forward.negatives[some], other.negatives)
    np.testing.assert_array_equal(forward.positives[some], other.positives)


def test_the_positive_is_one_that_may_be(city):
    """Nearer images of the same place are neither positive nor negative."""
    may = [np.array([rows[-1]]) for rows in city["same"]]
    mined = _mine(city, candidates=Candidates(may, city["same"]))
    assert mined.positives.tolist() == [rows[0] for rows in may]
    np.testing.assert_array_equal(mined.negatives, _mine(city).negatives)


def test_remembered_negatives_compete_with_the_next_pool(city):
    hardest = _mine(city).negatives
    remembered = hardest.copy()
    mined = _mine(city, negative_pool=3, remembered=remembered, seed=5)
    np.testing.assert_array_equal(mined.negatives, hardest)


def test_the_nearest_of_pool_and_remembered_are_kept(city):
    """Three passes against the rule in sets; a pool of 3 is all returned."""
    remembered = np.full((12, 3), -1)
    expected = [set() for _ in range(12)]
    for seed in range(3):
        pool = _mine(city, negative_pool=3, seed=seed).negatives
        mined = _mine(city, negative_pool=3, seed=seed, remembered=remembered)
        for q in range(12):
            distances = _squared_distances(city["queries"][q], city["database"])
            union = sorted(
                expected[q] | set(pool[q].tolist()),
                key=lambda row: distances[row],
            )
            expected[q] = set(union[:3])
            assert mined.negatives[q].tolist() == union[:3]
            assert remembered[q].tolist() == union[:3]


def test_remembered_is_updated_for_mined_queries_only(city):
    remembered = np.full((12, 3), -1)
    mined = _mine(city, queries=np.array([4]), remembered=remembered)
    assert remembered[4].tolist() == mined.negatives[0].tolist()
    assert (remembered[np.arange(12) != 4] == -1).all()


@pytest.mark.parametrize(
    ("which", "row", "message"),
    [
        ("queries", 9, "in row 9 of the queries"),
        ("database", 33, "or row 33 of"),
    ],
)
def test_values_that_are_not_finite(city, small_blocks, which, row, message):
    city[which][row, 3] = np.nan
    with pytest.raises(ValueError, match=f"Expected finite desc.*{message}"):
        _mine(city)


def test_violating_is_the_share_nearer_than_the_positive():
    mined = hard_negatives.Mined(
        positives=np.zeros(2, int),
        negatives=np.zeros((2, 2), int),
        positive_distances=np.array([0.5, 0.5], np.float32),
        negative_distances=np.array([[0.4, 0.6], [0.7, 0.8]], np.float32),
    )
    assert mined.violating == 0.25


def _check(near, *, database_size=5, num_negatives=2, negative_pool=0):
    return hard_negatives.usable_queries(
        Candidates(near, near),
        database_size=database_size,
        num_negatives=num_negatives,
        negative_pool=negative_pool,
    )


def test_queries_without_a_positive_are_left_out():
    near = [np.array([0]), np.array([], int), np.array([1])]
    assert _check(near).tolist() == [0, 2]


def test_no_usable_query_is_an_error():
    with pytest.raises(ValueError, match="none with one"):
        _check([np.array([], int)] * 3)


def test_too_few_negatives_name_the_query():
    near = [np.array([0]), np.array([0, 1, 2])]
    with pytest.raises(ValueError, match="query 1 has 2 of 5"):
        _check(near, num_negatives=3)


def test_a_pool_below_a_tuple():
    with pytest.raises(ValueError, match="Received: negative_pool=1, num_neg"):
        _check([np.array([0])], negative_pool=1)
