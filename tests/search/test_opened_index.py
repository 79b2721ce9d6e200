"""Segments and shards searched as one, beside exact search in one array."""

import shutil
import tracemalloc

import numpy as np
import pytest
import toy_damage
import toy_index
import toy_search

from sare_tf.runtime import atomic_files, file_digests
from sare_tf.search import descriptor_arrays, exact_search, scann_searcher
from sare_tf.search.opened_index import Index

DIMENSION = 16


@pytest.fixture(scope="module")
def descriptors():
    rows = toy_index.clustered(1, 12, 25, DIMENSION)
    rows[150] = rows[20]  # equally far from all, in two shards
    return rows


@pytest.fixture(scope="module")
def names():
    return [f"{row:03d}.jpg" for row in range(300)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory, descriptors, names):
    """Rows 0-99, 100-249 and 250-299."""
    folder = tmp_path_factory.mktemp("shards")
    for number, (start, stop) in enumerate([(0, 100), (100, 250), (250, 300)]):
        toy_index.write(
            folder / f"{number}-of-3",
            descriptors[start:stop],
            names[start:stop],
        )
    return folder


def _queries(count=40):
    return toy_search.unit(5, count, DIMENSION)


@pytest.mark.parametrize("k", [1, 10, 60, 300])
def test_shards_are_one_index(shards, descriptors, names, k):
    opened = Index.open(shards, exact=True)
    assert opened.manifest["image_id"].tolist() == names
    np.testing.assert_array_equal(opened.descriptors[:], descriptors)
    queries = np.concatenate([_queries(), descriptors[20:21]])
    rows, distances = opened.search(queries, k)
    expected = exact_search.nearest(queries, descriptors, k)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(distances, expected[1])
    if k > 1:
        assert rows[-1, :2].tolist() == [20, 150]


def test_shards_by_scann_have_the_distances_of_exact_search(
    shards, descriptors
):
    opened = Index.open(shards)
    _, distances = opened.search(_queries(), 60)
    _, expected = exact_search.nearest(_queries(), descriptors, 60)
    np.testing.assert_allclose(distances, expected, atol=1e-5)


def test_shards_by_name_are_taken_in_that_order(shards, names):
    paths = [shards / "2-of-3", shards / "0-of-3"]
    opened = Index.open(paths, exact=True)
    expected = names[250:] + names[:100]
    assert opened.manifest["image_id"].tolist() == expected
    assert opened.path == f"{paths[0]},{paths[1]}"
    assert opened.records_fingerprints == {"of 0-of-3", "of 2-of-3"}


def test_shards_must_be_of_one_export(shards, tmp_path, descriptors):
    other = toy_index.write(
        tmp_path / "other", descriptors[:5], list("abcde"), export="another"
    )
    with pytest.raises(ValueError, match="another export_fingerprint than"):
        Index.open([shards / "0-of-3", other], exact=True)


def test_an_image_in_two_shards_is_refused(shards):
    with pytest.raises(ValueError, match="100 images twice, such as '000.jpg'"):
        Index.open(2 * [shards / "0-of-3"], exact=True)


def test_a_folder_without_index_and_shards(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sare_tf.index"):
        Index.open(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"sare_tf.index"):
        Index.open([tmp_path / "a", tmp_path / "b"])


@pytest.fixture
def one(tmp_path, descriptors, names):
    return toy_index.write(tmp_path / "index", descriptors, names)


def _remove(folder, rows):
    """What `index.remove` leaves, in the files' own words."""
    np.save(folder / "removed-00001.npy", np.asarray(rows, np.int64))
    toy_damage.edit(
        folder / "index.json",
        removed="removed-00001.npy",
        count=Index.open(folder).metadata["count"] - len(rows),
        digests=file_digests.of(folder, ["removed-00001.npy"]),
    )


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("k", [1, 10, 240])
def test_removed_images_are_passed_over(one, descriptors, names, exact, k):
    # All that is nearest to the first 20 queries, and some more: 60 of 300.
    queries = np.concatenate([descriptors[:20], _queries()])
    gone = np.r_[0:50, 290:300]
    _remove(one, gone)
    opened = Index.open(one, exact=exact)
    kept = np.delete(np.arange(300), gone)
    assert opened.manifest["image_id"].tolist() == [names[row] for row in kept]
    rows, distances = opened.search(queries, k)
    expected = exact_search.nearest(queries, descriptors[kept], k)
    np.testing.assert_allclose(distances, expected[1], atol=1e-5)
    of_rows = ((queries[:, None] - descriptors[kept][rows]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, of_rows, atol=1e-5)
    if exact:
        np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(
        opened.descriptors[rows], descriptors[kept][rows]
    )


def test_a_tree_fills_up_with_exact_search(monkeypatch, tmp_path):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    descriptors = toy_index.clustered(2, 40, 25, DIMENSION)
    folder = toy_index.write(
        tmp_path / "index", descriptors, [str(row) for row in range(1000)]
    )
    # The whole place that the queries show is gone.
    _remove(folder, np.arange(25))
    opened = Index.open(folder)
    assert opened.searches_with == "scann"
    queries = descriptors[:25]
    kept = descriptors[25:]
    for k in (20, 975):  # a few leaves have 20, but never all
        rows, distances = opened.search(queries, k)
        assert rows.min() >= 0
        assert all(len(set(row)) == k for row in rows)
        of_rows = ((queries[:, None] - kept[rows]) ** 2).sum(-1)
        np.testing.assert_allclose(distances, of_rows, atol=1e-5)
    _, expected = exact_search.nearest(queries, kept, 975)
    np.testing.assert_array_equal(distances, expected)


def test_float16_is_what_is_stored(tmp_path, descriptors, names):
    folder = toy_index.write(
        tmp_path / "index", descriptors, names, dtype="float16"
    )
    stored = descriptors.astype(np.float16)
    exact = Index.open(folder, exact=True)
    assert exact.descriptors.dtype == np.float16
    np.testing.assert_array_equal(exact.descriptors, stored)
    size = (folder / "descriptors.npy").stat().st_size
    assert 300 * DIMENSION * 2 < size < 300 * DIMENSION * 2 + 256
    rows, distances = exact.search(_queries(), 10)
    expected = exact_search.nearest(_queries(), stored.astype(np.float32), 10)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(distances, expected[1])
    _, by_scann = Index.open(folder).search(_queries(), 10)
    np.testing.assert_allclose(by_scann, distances, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["descriptors.npy", "manifest.parquet", "scann/dataset.npy"],
)
def test_cut_off_files_are_refused(one, name):
    whole = (one / name).read_bytes()
    (one / name).write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=f"whole index.*{name} has"):
        Index.open(one)


def test_files_that_are_lost_are_refused(one):
    _remove(one, [0])
    (one / "removed-00001.npy").unlink()
    with pytest.raises(ValueError, match="whole index.*removed-00001"):
        Index.open(one)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 299, "there are not 299 images"),
        ("dimension", 8, "not of length 8"),
        ("segments", None, "holds segments=None.*sare_tf.index"),
        ("segments", [7], "7 is no object.*sare_tf.index"),
        ("segments", [{}], "lacks 'folder'.*sare_tf.index"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(one, name, value, message):
    toy_damage.edit(one / "index.json", **{name: value})
    with pytest.raises(ValueError, match=message):
        Index.open(one)


def test_a_segment_of_another_length_is_refused(one):
    [segment] = Index.open(one).metadata["segments"]
    toy_damage.edit(one / "index.json", segments=[{**segment, "count": 7}])
    with pytest.raises(ValueError, match=r"have \[300\] rows, not 7"):
        Index.open(one)


def test_a_moved_index_finds_the_same(one, tmp_path):
    before = Index.open(one).search(_queries(), 5)
    shutil.move(one, tmp_path / "elsewhere")
    after = Index.open(tmp_path / "elsewhere").search(_queries(), 5)
    np.testing.assert_array_equal(before[0], after[0])


def test_descriptors_are_written_in_bounded_memory(tmp_path):
    def blocks():
        for row in range(0, 64_000, 1000):
            yield np.full((1000, 256), row, np.float32)

    with atomic_files.folder_to_resume(tmp_path / "index", {}) as unfinished:
        tracemalloc.start()
        descriptor_arrays.write(
            blocks(), unfinished, shape=(64_000, 256), dtype="float16"
        )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # Of 33 MB written, a block is 1.0 MB as float32 and 0.5 MB as float16.
    assert peak < 4e6
    written = np.load(tmp_path / "index" / "descriptors.npy", mmap_mode="r")
    assert written.shape == (64_000, 256)
    np.testing.assert_array_equal(
        written[::1000, 7], np.arange(0, 64_000, 1000).astype(np.float16)
    )


def test_rows_of_several_arrays_are_as_one_array():
    arrays = [np.arange(12.0).reshape(4, 3), -np.arange(9.0).reshape(3, 3)]
    rows = descriptor_arrays.GatheredRows(
        arrays, [np.array([0, 2, 3]), np.array([1])]
    )
    whole = np.array([[0, 1, 2], [6, 7, 8], [9, 10, 11], [-3, -4, -5.0]])
    assert (len(rows), rows.shape, rows.dtype) == (4, (4, 3), whole.dtype)
    np.testing.assert_array_equal(np.asarray(rows), whole)
    np.testing.assert_array_equal(rows[1], whole[1])
    np.testing.assert_array_equal(rows[1:9], whole[1:9])
    several = np.array([[3, 0], [1, 1]])
    np.testing.assert_array_equal(rows[several], whole[several])
    assert rows[:0].shape == (0, 3)
    with pytest.raises(ValueError, match="copy=None or True"):
        np.array(rows, copy=False)
