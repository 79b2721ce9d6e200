"""ScaNN's rules, and a tree over 3,000 rows beside exact search."""

import shutil

import numpy as np
import pytest
import toy_index
import toy_search

from sare_tf.search import exact_search, scann_searcher


@pytest.fixture(scope="module")
def scann():
    return pytest.importorskip("scann")


@pytest.fixture(scope="module")
def descriptors():
    return toy_index.clustered(1, 60, 50, 16)


@pytest.fixture(params=["memory", "disk"])
def parameters(request, monkeypatch):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    # So that rows are added to a tree, in several blocks.
    monkeypatch.setattr(scann_searcher, "_TRAINING_SAMPLE", 1000)
    monkeypatch.setattr(scann_searcher, "_HELD_NUMBERS", 12_000)
    return scann_searcher.rules(
        count=3000, dimension=16, reorder_from=request.param
    )


@pytest.fixture
def tree(scann, descriptors, parameters):
    return scann_searcher.Searcher.build(scann, descriptors, parameters)


def _queries(descriptors):
    queries = descriptors[::37] + 0.1 * toy_search.unit(3, 82, 16)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def test_rules_grow_with_the_database():
    assert scann_searcher.rules(count=19_999, dimension=64) == {
        "searcher": "brute_force"
    }
    assert scann_searcher.rules(
        count=19_999, dimension=64, reorder_from="disk"
    ) == {"searcher": "exact"}
    tree = scann_searcher.rules(count=1_000_000, dimension=512)
    assert tree["num_leaves"] == 1000
    assert tree["num_leaves_to_search"] == 200
    assert tree["training_sample_size"] == 250_000
    assert tree["reordering_num_neighbors"] == 400


def test_training_takes_bounded_memory():
    tree = scann_searcher.rules(count=1_000_000, dimension=32768)
    # 2^29 numbers are 2 GiB of float32; 2^29 / 2^15 = 2^14 rows.
    assert tree["training_sample_size"] == 2**14
    tree = scann_searcher.rules(count=10**9, dimension=32768)
    assert tree["training_sample_size"] == tree["num_leaves"] == 31623


@pytest.mark.parametrize(
    ("num_leaves", "reorder_from", "sample"),
    [
        (1000, "memory", 250_000),
        (1000, "disk", 100_000),
        (4000, "memory", 64 * 4000),
        (4000, "disk", 64 * 4000),
        # 2^27 numbers are 0.5 GiB; 2^27 / 2^9 = 2^18 rows.
        (8000, "disk", 2**18),
        (20_000, "memory", 1_000_000),
    ],
)
def test_more_rows_train_trees_of_many_leaves(num_leaves, reorder_from, sample):
    assert sample == scann_searcher.training_sample_size(
        count=1_000_000,
        dimension=512,
        num_leaves=num_leaves,
        reorder_from=reorder_from,
    )


def test_tree_finds_nearly_all_by_distance(tree, descriptors):
    queries = _queries(descriptors)
    rows, distances = tree.search(queries, 10)
    _, exact = exact_search.nearest(queries, descriptors, 10)
    assert exact_search.recall_of_search(distances, exact) > 0.95
    of_rows = ((queries[:, None] - descriptors[rows]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, of_rows, atol=1e-5)


def test_all_leaves_and_rows_are_exact(tree, descriptors):
    queries = _queries(descriptors)
    tree.parameters["num_leaves_to_search"] = tree.parameters["num_leaves"]
    tree.parameters["reordering_num_neighbors"] = 3000
    _, distances = tree.search(queries, 10)
    _, exact = exact_search.nearest(queries, descriptors, 10)
    np.testing.assert_allclose(distances, exact, atol=1e-5)


def test_padding_is_masked(tree, descriptors):
    # A fifth of the leaves cannot hold all rows.
    rows, distances = tree.search(descriptors[:3], 3000)
    padded = rows == -1
    assert padded.any(axis=1).all()
    np.testing.assert_array_equal(np.isinf(distances), padded)
    for row in rows:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


def assert_same_neighbours(queries, descriptors, found, expected):
    """The same distances, to rounding, which are those of the rows."""
    rows, distances = found
    np.testing.assert_allclose(distances, expected[1], rtol=1e-6)
    of_rows = ((queries[:, None] - descriptors[rows]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, of_rows, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_threads_finds_the_same(tree, descriptors, count):
    queries = toy_search.unit(3, 600, 16)
    expected = tree.search(queries, 10)
    tree.set_num_threads(count)
    found = tree.search(queries, 10)
    assert_same_neighbours(queries, descriptors, found, expected)


def test_the_tree_is_the_same_each_time(tree, scann, descriptors, parameters):
    queries = toy_search.unit(3, 50, 16)
    first = tree.search(queries, 10)
    again = scann_searcher.Searcher.build(scann, descriptors, parameters)
    second = again.search(queries, 10)
    assert_same_neighbours(queries, descriptors, second, first)


def test_a_written_tree_can_be_moved(tree, scann, descriptors, tmp_path):
    queries = toy_search.unit(3, 50, 16)
    first = tree.search(queries, 10)
    tree.write(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    loaded = scann_searcher.Searcher.load(
        scann, tmp_path / "there", tree.parameters, stored=descriptors
    )
    second = loaded.search(queries, 10)
    assert_same_neighbours(queries, descriptors, second, first)


def test_a_tree_that_reorders_from_disk_holds_no_rows(
    tree, descriptors, tmp_path
):
    tree.write(tmp_path / "scann")
    size = sum(path.stat().st_size for path in (tmp_path / "scann").iterdir())
    is_held = tree.parameters["reorder_from"] == "memory"
    assert (size > descriptors.nbytes) == is_held
    order = scann_searcher._order(descriptors, tree.parameters)
    np.testing.assert_array_equal(np.sort(order), np.arange(3000))


def test_float16_rows(scann, descriptors, parameters):
    rows = descriptors.astype(np.float16)
    tree = scann_searcher.Searcher.build(scann, rows, parameters)
    queries = _queries(descriptors)
    found, distances = tree.search(queries, 10)
    of_rows = queries[:, None] - rows[found].astype(np.float32)
    # 2 - 2 product takes lengths for 1, which 11 bits keep to 5e-4.
    np.testing.assert_allclose(distances, (of_rows**2).sum(-1), atol=1e-3)
