"""Exact search and recall against loops written from their definitions."""

import numpy as np
import pytest

from sare_tf.search import distance_blocks, exact_search


def _brute(queries, database, k):
    """Every pair, one at a time; sorted by (distance, row)."""
    rows, distances = [], []
    for query in queries:
        pairs = sorted(
            (
                np.float32(
                    sum(
                        (float(a) - float(b)) ** 2
                        for a, b in zip(query, row, strict=True)
                    )
                ),
                position,
            )
            for position, row in enumerate(database)
        )
        rows.append([position for _, position in pairs[:k]])
        distances.append([distance for distance, _ in pairs[:k]])
    return np.array(rows), np.array(distances, np.float32)


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("block", [1, 3, 7, 40, 8192])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_nearest_equals_a_loop_over_all_pairs(block, k):
    queries, database = _random(6, 5), _random(40, 5, seed=1)
    rows, distances = exact_search.nearest(queries, database, k, block=block)
    expected_rows, expected = _brute(queries, database, k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(distances, expected, rtol=1e-6)
    assert (rows.dtype, distances.dtype) == (np.int64, np.float32)


def test_nearest_by_hand():
    # From (0, 0): rows at squared distances 9, 1, 4 + 1 = 5.
    rows, distances = exact_search.nearest(
        np.array([[0.0, 0.0]]), np.array([[3.0, 0], [0, 1], [2, 1]]), 2
    )
    assert rows.tolist() == [[1, 2]]
    assert distances.tolist() == [[1.0, 5.0]]


@pytest.mark.parametrize("block", [4, 13, 8192])
def test_ties_go_to_the_lower_row(block):
    distinct = _random(3, 64)
    database = distinct[np.arange(60) % 3]
    rows, distances = exact_search.nearest(distinct, database, 15, block=block)
    for query in range(3):
        assert rows[query].tolist() == list(range(query, 45, 3))
    np.testing.assert_array_equal(distances, 0)


def test_close_distances_are_not_lost_to_cancellation():
    # 1e-4 apart at a norm of 100: a float32 matrix product sees 0 or noise.
    database = np.full((5, 4), 50, np.float32)
    database[:, 0] += np.array([4, 2, 3, 1, 5], np.float32) * 2**-10
    query = np.full((1, 4), 50, np.float32)
    rows, distances = exact_search.nearest(query, database, 5)
    assert rows.tolist() == [[3, 1, 2, 0, 4]]
    steps = np.array([[1, 2, 3, 4, 5]])
    np.testing.assert_allclose(distances, (steps * 2.0**-10) ** 2, rtol=1e-6)


def test_more_queries_than_one_block_of_queries(monkeypatch):
    monkeypatch.setattr(distance_blocks, "_QUERY_BLOCK", 2)
    monkeypatch.setattr(distance_blocks, "_EXACT_BLOCK", 7)
    queries, database = _random(5, 3), _random(20, 3, seed=1)
    rows, _ = exact_search.nearest(queries, database, 4, block=6)
    np.testing.assert_array_equal(rows, _brute(queries, database, 4)[0])


def test_memory_map_and_no_queries(tmp_path):
    database = _random(9, 4)
    np.save(tmp_path / "database.npy", database)
    mapped = np.load(tmp_path / "database.npy", mmap_mode="r")
    rows, _ = exact_search.nearest(database, mapped, 1)
    assert rows[:, 0].tolist() == list(range(9))
    rows, distances = exact_search.nearest(database[:0], mapped, 2)
    assert rows.shape == distances.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=rf"1 to the 3 rows.*k={k}"):
        exact_search.nearest(_random(2, 4), _random(3, 4), k)


@pytest.mark.parametrize("shapes", [((2, 4), (3, 5)), ((4,), (3, 4))])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="one descriptor length D. Received"):
        exact_search.nearest(_random(*shapes[0]), _random(*shapes[1]), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["queries", "database"])
def test_values_that_are_not_finite(name, value):
    arrays = {"queries": _random(5, 4), "database": _random(5, 4)}
    arrays[name][3, 1] = value
    with pytest.raises(ValueError, match=f"{name} with a NaN .* in row 3"):
        exact_search.nearest(arrays["queries"], arrays["database"], 1, block=2)


def test_recall_of_search_counts_by_distance():
    exact = np.array([[0.1, 0.2], [0.3, 0.4]])
    # 0.2 twice is another row as far as the second; NaN and inf: not found.
    found = np.array([[0.2, 0.2], [0.3, np.nan]])
    assert exact_search.recall_of_search(found, exact) == 3 / 4
    found = np.array([[0.1, 0.3], [0.4 + 1e-6, np.inf]])
    assert exact_search.recall_of_search(found, exact) == 2 / 4
    with pytest.raises(ValueError, match=r"approximate.shape=\(2, 1\)"):
        exact_search.recall_of_search(found[:, :1], exact)


@pytest.mark.parametrize("block", [1, 7, 40])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_only_allowed_rows_are_found(block, k):
    queries, database = _random(6, 5), _random(40, 5, seed=1)
    allowed = np.arange(40) % 2 == 1
    allowed[:9] = False
    allowed[30:34] = True
    rows, distances = exact_search.nearest(
        queries, database, min(k, allowed.sum()), allowed=allowed, block=block
    )
    kept = np.flatnonzero(allowed)
    expected, far = _brute(queries, database[kept], min(k, len(kept)))
    np.testing.assert_array_equal(rows, kept[expected])
    np.testing.assert_allclose(distances, far, rtol=1e-6)


def test_allowed_rows_must_suffice_and_fit():
    queries, database = _random(2, 4), _random(5, 4)
    with pytest.raises(ValueError, match="1 to the 2 rows"):
        exact_search.nearest(queries, database, 3, allowed=np.arange(5) < 2)
    with pytest.raises(ValueError, match=r"shape \(5,\).*shape=\(4,\)"):
        exact_search.nearest(queries, database, 1, allowed=np.ones(4, bool))


@pytest.mark.parametrize("block", [1, 7, 8192])
def test_ranks_equal_places_in_the_full_ranking(block):
    rng = np.random.default_rng(2)
    queries, database = _random(6, 5), _random(60, 5, seed=1)
    # Rows that repeat, so that ties occur.
    database[40:] = database[:20]
    wanted = [rng.permutation(60)[:count] for count in (0, 1, 5, 60, 3, 0)]
    ranks = exact_search.ranks_of(queries, database, wanted, block=block)
    full, _ = _brute(queries, database, 60)
    for some, rows, ranking in zip(ranks, wanted, full, strict=True):
        expected = [ranking.tolist().index(row) for row in rows]
        assert some.tolist() == expected


def test_ranks_are_not_lost_to_cancellation():
    # As in the test of `nearest` above.
    database = np.full((5, 4), 50, np.float32)
    database[:, 0] += np.array([4, 2, 3, 1, 5], np.float32) * 2**-10
    query = np.full((1, 4), 50, np.float32)
    (ranks,) = exact_search.ranks_of(query, database, [np.arange(5)])
    assert ranks.tolist() == [3, 1, 2, 0, 4]


def test_distances_to_rows_are_those_of_nearest():
    queries, database = _random(3, 5), _random(9, 5, seed=1)
    rows, distances = exact_search.nearest(queries, database, 9)
    found = exact_search.distances_to(queries, database, list(rows))
    np.testing.assert_array_equal(found, distances)
    assert exact_search.distances_to(queries[:0], database, []) == []
    for function in (exact_search.distances_to, exact_search.ranks_of):
        with pytest.raises(ValueError, match=r"the 3 queries.*len\(rows\)=1"):
            function(queries, database, [np.array([0])])
