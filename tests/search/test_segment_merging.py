"""An index that changes every day: its segments, readers, and kills."""

import threading

import numpy as np
import pytest
import toy_damage
import toy_index

from sare_tf.runtime.damage import Damaged
from sare_tf.search import (
    descriptor_arrays,
    exact_search,
    index_changes,
    index_files,
    index_opening,
    segment_merging,
    segments,
    vector_index,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions

_DIMENSION = 8


def _rows(count, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, _DIMENSION))
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _names(first, count):
    return [f"{number:05d}" for number in range(first, first + count)]


@pytest.fixture
def built(tmp_path):
    return Index.build(
        _rows(60), image_ids=_names(0, 60), out=tmp_path / "index"
    )


def _add(folder, descriptors, names):
    index_changes.add_vectors(
        index=folder,
        descriptors=descriptors,
        rows=vector_index.rows_of(
            names, positions=None, utm_zone="", place_ids=None
        ),
        stale=0.25,
    )


def _remove(folder, names, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(names))
    index_changes.remove(index=folder, ids=tmp_path / "ids.txt", stale=0.25)


@pytest.mark.parametrize(
    ("live", "counts", "expected"),
    [
        ([100], [100], None),
        ([74], [100], 0),
        ([76], [100], None),
        ([100, 10], [100, 10], None),
        ([100, 20, 10], [100, 20, 10], 1),
        ([100, 21, 10], [100, 21, 10], None),
        # 10 + 20 are more than half of 50, which are more than half of 100.
        ([100, 50, 20, 10], [100, 50, 20, 10], 0),
        ([1000, 50, 20, 10], [1000, 50, 20, 10], 1),
        ([100, 30, 10], [100, 50, 10], 1),
        ([100, 0], [100, 10], 1),
    ],
)
def test_which_segments_are_merged(live, counts, expected):
    found = segment_merging.first_to_merge(live, counts, stale=0.25)
    assert found == expected


def test_many_changes_keep_the_index_small_and_right(built, tmp_path):
    folder = built.folders[0]
    held = dict(zip(_names(0, 60), _rows(60), strict=True))
    rng = np.random.default_rng(5)
    queries = _rows(5, seed=9)
    failures, is_over = [], threading.Event()

    def read_all_the_time():
        while not is_over.is_set():
            try:
                Index.open(folder, exact=True).search(queries, 3)
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read_all_the_time)
    reader.start()
    try:
        for day in range(25):
            names = _names(1000 + 10 * day, 5)
            rows = _rows(5, seed=100 + day)
            _add(folder, rows, names)
            held |= dict(zip(names, rows, strict=True))
            gone = rng.choice(sorted(held), 4, replace=False).tolist()
            _remove(folder, gone, tmp_path)
            for name in gone:
                del held[name]
            opened = Index.open(folder, exact=True)
            assert sorted(opened.manifest["image_id"]) == sorted(held)
            sizes = [len(segment.live) for segment in opened.segments]
            # Each is more than twice the next, but for what was removed.
            assert len(sizes) <= 5
            stored = sum(len(one.descriptors) for one in opened.segments)
            assert stored <= len(held) / 0.75
    finally:
        is_over.set()
        reader.join(20)
    assert not failures
    # A loop over what should be there.
    rows, distances = opened.search(queries, 6)
    for query, found, far in zip(queries, rows, distances, strict=True):
        expected = sorted(
            (float(np.sum((query - row) ** 2)), name)
            for name, row in held.items()
        )[:6]
        names = opened.manifest["image_id"].iloc[found].tolist()
        assert names == [name for _, name in expected]
        np.testing.assert_allclose(far, [one for one, _ in expected], 1e-5)
    on_disk = sum(
        path.stat().st_size for path in folder.rglob("descriptors.npy")
    )
    assert on_disk <= stored * 4 * _DIMENSION + 200 * len(sizes)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (descriptor_arrays, "write"),
        (segments, "finish"),
        (segment_merging, "write_removed"),
        (segment_merging, "write_change"),
    ],
)
def test_a_merge_that_was_killed_did_not_happen(
    built, tmp_path, monkeypatch, module, name
):
    folder = built.folders[0]
    _remove(folder, _names(3, 9), tmp_path)
    before = Index.open(folder)
    expected = before.search(_rows(9, seed=4), 20)
    original = getattr(module, name)

    def killed(*arguments, **options):
        if name != "write_change":
            original(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, name, killed)
    with pytest.raises(KeyboardInterrupt):
        index_changes.compact(index=folder, tuning=TuningOptions())
    monkeypatch.undo()
    after = Index.open(folder)
    assert after.metadata == before.metadata
    for one, other in zip(
        after.search(_rows(9, seed=4), 20), expected, strict=True
    ):
        np.testing.assert_array_equal(one, other)
    index_changes.compact(index=folder, tuning=TuningOptions())
    assert {path.name for path in folder.iterdir()} == {
        "index.json",
        "merged-00002",
    }


def test_a_change_while_an_index_is_opened_is_no_damage(
    built, tmp_path, monkeypatch
):
    """Files of the old index go just before they are read."""
    folder = built.folders[0]
    opening = index_opening._segments
    changes = []

    def changed(folder, metadata, **options):
        if not changes:
            changes.append(1)
            _remove(folder, _names(0, 30), tmp_path)
        return opening(folder, metadata, **options)

    monkeypatch.setattr(index_opening, "_segments", changed)
    # `remove` opens the index, too.
    assert len(Index.open(folder).manifest) == 30
    assert not (folder / "descriptors.npy").exists()


@pytest.mark.parametrize(
    ("descriptors", "names", "message"),
    [
        (_rows(2)[:, :4], ["a", "b"], "Expected descriptors .2, 8."),
        (2 * _rows(2), ["a", "b"], "length 2 for a"),
        (_rows(2), ["a", "00007"], "1 that it holds, such as '00007'"),
    ],
)
def test_vectors_that_do_not_fit_are_not_added(
    built, descriptors, names, message
):
    with pytest.raises(ValueError, match=message):
        _add(built.folders[0], descriptors, names)
    assert Index.open(built.path).metadata == built.metadata


def test_what_is_reported_is_what_is_there(built, tmp_path, caplog):
    """A removal that merges leaves nothing for --compact to free."""
    folder = built.folders[0]
    with caplog.at_level("INFO"):
        _remove(folder, _names(0, 30), tmp_path)
    assert "frees the space of 0 removed images" in caplog.text
    with caplog.at_level("INFO"):
        _remove(folder, _names(30, 2), tmp_path)
    assert "frees the space of 2 removed images" in caplog.text


def test_damage_is_not_copied(built, tmp_path):
    folder = built.folders[0]
    _add(folder, _rows(20, seed=3), _names(500, 20))
    before = Index.open(folder).metadata
    toy_damage.flip(folder / "added-00001" / "descriptors.npy", 150)
    # Removing looks at all files, adding vectors only where it copies them.
    with pytest.raises(Damaged, match="descriptors.npy: not as written"):
        _add(folder, _rows(15, seed=4), _names(600, 15))
    segments_now = index_files.read(folder)["segments"]
    assert [one["folder"] for one in segments_now[:2]] == [
        one["folder"] for one in before["segments"]
    ]


def test_nothing_is_merged_on_request(built, tmp_path):
    folder = built.folders[0]
    (tmp_path / "ids.txt").write_text("\n".join(_names(0, 50)))
    index_changes.remove(index=folder, ids=tmp_path / "ids.txt", stale=0)
    opened = Index.open(folder)
    assert (len(opened.manifest), len(opened.segments[0].descriptors)) == (
        10,
        60,
    )


def test_the_last_segments_may_be_gone(built, tmp_path):
    folder = built.folders[0]
    _add(folder, _rows(2, seed=3), _names(500, 2))
    _remove(folder, _names(500, 2), tmp_path)
    opened = Index.open(folder)
    assert [len(one.descriptors) for one in opened.segments] == [60]
    assert opened.metadata["removed"] is None
    found, _ = opened.search(_rows(60)[:3], 1)
    assert found[:, 0].tolist() == [0, 1, 2]


def test_a_tree_is_merged_as_it_was_tuned(tmp_path, monkeypatch):
    monkeypatch.setattr(segments.scann_searcher, "TREE_FROM", 0)
    many = toy_index.clustered(2, 40, 25, 16)
    built = Index.build(many, image_ids=_names(0, 1000), out=tmp_path / "index")
    folder = built.folders[0]
    index_changes.compact(
        index=folder,
        tuning=TuningOptions(target_recall=0.9, reorder_from="disk"),
    )
    _remove(folder, _names(0, 300), tmp_path)
    opened = Index.open(folder)
    assert opened.metadata["target_recall"] == 0.9
    scann = opened.metadata["segments"][0]["scann"]
    assert scann["reorder_from"] == "disk"
    _, distances = opened.search(many[300:350], 10)
    _, exact = exact_search.nearest(many[300:350], many[300:], 10)
    assert exact_search.recall_of_search(distances, exact) > 0.9
