"""Indexes of codes: built, searched, changed, damaged, stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_index

from sare_tf.runtime import atomic_files, disk_space
from sare_tf.runtime.damage import Damaged
from sare_tf.search import (
    descriptor_arrays,
    exact_search,
    index_changes,
    index_size,
    scann_searcher,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import CODES, TuningOptions

NAMES = [f"{row:04d}" for row in range(1000)]


@pytest.fixture(scope="module")
def descriptors():
    return toy_index.clustered(2, 40, 25, 32)


@pytest.fixture(params=CODES)
def built(request, descriptors, tmp_path):
    return Index.build(
        descriptors,
        image_ids=NAMES,
        out=tmp_path / "index",
        dtype=request.param,
    )


def _recall(found, exact):
    return np.mean(
        [len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]
    )


def test_it_holds_codes_only(built, descriptors):
    names = {path.name for path in Path(built.path).iterdir()}
    assert names == {
        "codec.npz",
        "codes.npy",
        "index.json",
        "manifest.parquet",
    }
    codes = np.load(Path(built.path, "codes.npy"))
    times = {"int8": 4, "product": 16, "binary": 32}[built.metadata["dtype"]]
    assert codes.nbytes * times == descriptors.nbytes
    assert built.searches_with == "exact"


def test_the_recall_of_codes_is_measured(built, descriptors):
    queries = descriptors[::5]
    exact, _ = exact_search.nearest(queries, descriptors, 10)
    found, distances = built.search(queries, 10)
    measured = built.metadata["segments"][0]["code_recall"]
    assert abs(_recall(found, exact) - measured) < 0.1
    least = {"int8": 0.97, "product": 0.5, "binary": 0.3}
    assert least[built.metadata["dtype"]] < measured <= 1
    decoded = np.asarray(built.descriptors)
    of_rows = ((queries[:, None] - decoded[found]) ** 2).sum(axis=2)
    np.testing.assert_allclose(distances, of_rows, atol=1e-5)


def test_a_tree_over_codes_finds_what_they_say(
    descriptors, tmp_path, monkeypatch
):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    built = Index.build(
        descriptors, image_ids=NAMES, out=tmp_path / "index", dtype="int8"
    )
    assert built.searches_with == "scann"
    assert built.metadata["segments"][0]["scann"]["reorder_from"] == "disk"
    found, distances = built.search(descriptors[::5], 10)
    exact = Index.open(built.path, exact=True)
    rows, expected = exact.search(descriptors[::5], 10)
    assert exact_search.recall_of_search(distances, expected) > 0.95
    assert built.recall_at(10) > 0.95
    # Settings are of ScaNN, so another recall needs no other codes.
    before = Path(built.path, "codes.npy").read_bytes()
    index_changes.compact(
        index=built.path, tuning=TuningOptions(target_recall=0.9)
    )
    (merged,) = Path(built.path).glob("merged-*/codes.npy")
    assert merged.read_bytes() == before


def test_images_are_removed_and_codes_stay(built, tmp_path):
    codes = np.load(Path(built.path, "codes.npy"))
    measured = built.metadata["segments"][0]["code_recall"]
    (tmp_path / "ids.txt").write_text("0003\n0500\n")
    index_changes.remove(index=built.path, ids=tmp_path / "ids.txt")
    index_changes.compact(index=built.path, tuning=TuningOptions())
    again = Index.open(built.path)
    assert again.metadata["segments"][0]["code_recall"] == measured
    np.testing.assert_array_equal(
        again.segments[0].descriptors.codes, np.delete(codes, [3, 500], axis=0)
    )


def test_a_prior_is_searched(built, descriptors):
    where = np.zeros(1000, bool)
    where[::9] = True
    found, _ = built.search(descriptors[:20], 5, where=where)
    decoded = np.asarray(built.descriptors)[where]
    expected, _ = exact_search.nearest(descriptors[:20], decoded, 5)
    np.testing.assert_array_equal(found, np.flatnonzero(where)[expected])


@pytest.mark.parametrize("name", ["codes.npy", "codec.npz"])
def test_damage_is_named(built, name):
    content = bytearray(Path(built.path, name).read_bytes())
    content[-1] ^= 1
    Path(built.path, name).write_bytes(content)
    with pytest.raises(Damaged, match=f"{name}: not as written"):
        Index.open(built.path)


def test_few_images_are_no_reason_to_fail(tmp_path, descriptors):
    for dtype in ("int8", "binary"):
        built = Index.build(
            descriptors[:4],
            image_ids=NAMES[:4],
            out=tmp_path / dtype,
            dtype=dtype,
        )
        assert built.search(descriptors[:4], 1)[0][:, 0].tolist() == [
            0,
            1,
            2,
            3,
        ]
    with pytest.raises(ValueError, match="at least 256 images"):
        Index.build(
            descriptors[:4],
            image_ids=NAMES[:4],
            out=tmp_path / "product",
            dtype="product",
        )
    assert {path.name for path in tmp_path.iterdir()} >= {"int8", "binary"}
    assert not (tmp_path / "product").exists()


def test_shards_of_codes_and_numbers_rank_together(tmp_path, descriptors):
    shards = []
    for number, dtype in enumerate(("float32", "int8")):
        rows = slice(500 * number, 500 * number + 500)
        shards.append(
            Index.build(
                descriptors[rows],
                image_ids=NAMES[rows],
                out=tmp_path / dtype,
                dtype=dtype,
            )
        )
    both = Index.open([tmp_path / "float32", tmp_path / "int8"])
    whole = np.concatenate([np.asarray(one.descriptors) for one in shards])
    np.testing.assert_array_equal(np.asarray(both.descriptors), whole)
    expected, _ = exact_search.nearest(descriptors[::7], whole, 5)
    np.testing.assert_array_equal(both.search(descriptors[::7], 5)[0], expected)


def test_numbers_that_a_kill_left_are_removed(built):
    path = Path(built.path)
    np.save(path / "descriptors.npy", np.zeros((1000, 32), np.float16))
    assert np.asarray(Index.open(path).descriptors)[0].any()
    descriptor_arrays.remove_coded(path)
    assert not (path / "descriptors.npy").exists()


def test_an_index_too_large_for_the_disk_is_refused_before_any_work(
    descriptors, tmp_path, monkeypatch
):
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: 100_000)
    text = "0.00 GiB free. Make room.*by --index_dtype=int8"
    with pytest.raises(ValueError, match=text):
        Index.build(descriptors, image_ids=NAMES, out=tmp_path / "index")
    assert not list(tmp_path.iterdir())


def test_sizes_are_those_of_the_files(built, descriptors):
    dtype = built.metadata["dtype"]
    stated = index_size.disk_bytes(1000, 32, dtype=dtype, reorder_from="disk")
    # 64 bytes a row of float16, the code, and 2 * 8 bytes of ScaNN's.
    length = {"int8": 32, "product": 8, "binary": 4}[dtype]
    assert stated == 1000 * (64 + length + 16)
    assert index_size.disk_bytes(
        1000, 32, dtype="float32", reorder_from="memory"
    ) == 1000 * (128 + 128 + 16)


def test_memory_is_told_before(descriptors, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    monkeypatch.setattr(index_size, "available_memory", lambda: 1000)
    Index.build(descriptors, image_ids=NAMES, out=tmp_path / "index")
    assert "Build with --reorder_from=disk" in caplog.text
    metadata = json.loads((tmp_path / "index" / "index.json").read_text())
    assert metadata["reorder_from"] == "memory"
    assert index_size.available_memory() == 1000
    assert atomic_files.unfinished_bytes(tmp_path / "index") == 0
