"""What a tree of ScaNN finds at larger k, beside exact search."""

import json
import shutil

import numpy as np
import pytest
import toy_damage
import toy_search

from sare_tf.search import exact_search, index_changes, scann_searcher
from sare_tf.search.opened_index import Index
from sare_tf.search.options import TuningOptions

# Random vectors are the hardest case.
COUNT, DIMENSION = 3000, 24


@pytest.fixture(scope="module")
def descriptors():
    return toy_search.unit(1, COUNT, DIMENSION)


@pytest.fixture(scope="module")
def queries():
    return toy_search.unit(2, 60, DIMENSION)


@pytest.fixture(scope="module")
def built(tmp_path_factory, descriptors):
    out = tmp_path_factory.mktemp("tree") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scann_searcher, "TREE_FROM", 1000)
        Index.build(
            descriptors, image_ids=[str(i) for i in range(COUNT)], out=out
        )
    return out


def _recall(found, queries, descriptors):
    """By sets of rows, in numpy alone."""
    products = queries @ descriptors.T
    exact = np.argsort(-products, axis=1)[:, : found.shape[1]]
    return np.mean(
        [
            len(set(a) & set(b)) / len(b)
            for a, b in zip(found.tolist(), exact.tolist(), strict=True)
        ]
    )


@pytest.mark.parametrize("k", [10, 30, 50, 100, 300, 600, 2000])
def test_recall_holds_at_every_k(built, queries, descriptors, k):
    opened = Index.open(built)
    assert opened.searches_with == "scann"
    rows, _ = opened.search(queries, k)
    recall = _recall(rows, queries, descriptors)
    at_10 = _recall(opened.search(queries, 10)[0], queries, descriptors)
    assert recall >= at_10 - 0.02
    assert opened.recall_at(k) >= opened.recall_at(10)
    # It was measured for rows of the index, and these queries are none.
    assert recall == pytest.approx(opened.recall_at(k), abs=0.06)


def test_settings_stand_in_index_json(built):
    content = json.loads((built / "index.json").read_text())
    [segment] = content["segments"]
    ks = [setting["k"] for setting in segment["settings"]]
    assert ks == sorted(ks)
    assert ks[0] == 10
    assert ks[-1] <= COUNT / 5
    first = segment["settings"][0]
    assert first["leaves"] == segment["scann"]["num_leaves_to_search"]
    opened = Index.open(built)
    assert opened.recall_at(10) == first["recall"]
    # Beyond the largest, search is exact.
    assert opened.recall_at(ks[-1] + 1) == 1.0


def test_exact_search_finds_all(built):
    assert Index.open(built, exact=True).recall_at(500) == 1.0


def test_a_target_holds_at_every_k(built, queries, descriptors, tmp_path):
    out = shutil.copytree(built, tmp_path / "index")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scann_searcher, "TREE_FROM", 1000)
        index_changes.compact(
            index=out, tuning=TuningOptions(target_recall=0.8)
        )
    opened = Index.open(out)
    for k in (10, 100, 500):
        assert opened.recall_at(k) >= 0.8
        recall = _recall(opened.search(queries, k)[0], queries, descriptors)
        assert recall > 0.77


def test_an_earlier_index_searches_more_leaves_for_larger_k(
    built, queries, descriptors, tmp_path
):
    out = shutil.copytree(built, tmp_path / "index")
    content = json.loads((out / "index.json").read_text())
    for segment in content["segments"]:
        del segment["settings"]
    (out / "index.json").write_text(json.dumps(content))
    toy_damage.forget_digests(out / "index.json")
    opened = Index.open(out)
    assert opened.recall_at(10) is None
    at_10 = _recall(opened.search(queries, 10)[0], queries, descriptors)
    for k in (100, 600):
        recall = _recall(opened.search(queries, k)[0], queries, descriptors)
        assert recall > at_10 - 0.03


def test_removed_images_are_passed_over_at_larger_k(built, queries, tmp_path):
    out = shutil.copytree(built, tmp_path / "index")
    gone = [str(row) for row in range(0, COUNT, 2)]
    (tmp_path / "ids.txt").write_text("\n".join(gone))
    index_changes.remove(index=out, ids=tmp_path / "ids.txt")
    opened = Index.open(out)
    rows, distances = opened.search(queries, 400)
    _, exact = exact_search.nearest(queries, opened.descriptors[:], 400)
    recall = exact_search.recall_of_search(distances, exact)
    assert recall >= opened.recall_at(10) - 0.03
    assert not set(opened.manifest["image_id"].iloc[rows[0]]) & set(gone)
