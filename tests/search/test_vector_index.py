"""Indexes of descriptors that come from anywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
import toy_index
import toy_search

from sare_tf import index, serving
from sare_tf.dataset import manifest
from sare_tf.records.records import Records
from sare_tf.search import exact_search, index_changes, scann_searcher
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions, TuningOptions

NAMES = [f"{row:02d}.jpg" for row in range(40)]


@pytest.fixture(scope="module")
def descriptors():
    return toy_search.unit(1, 40, 12)


@pytest.fixture
def built(tmp_path, descriptors):
    return Index.build(descriptors, image_ids=NAMES, out=tmp_path / "index")


def test_no_folder_is_named_like_a_home(descriptors, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    built = Index.build(descriptors, image_ids=NAMES, out="~/index")
    assert str(built.path) == str(tmp_path / "home" / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("exact", [True, False])
def test_it_is_searched_as_the_descriptors_are(built, descriptors, exact):
    opened = Index.open(built.path, exact=exact)
    queries = toy_search.unit(2, 9, 12)
    rows, distances = opened.search(queries, 7)
    squared = ((queries[:, None] - descriptors) ** 2).sum(axis=2)
    np.testing.assert_array_equal(rows, np.argsort(squared, axis=1)[:, :7])
    np.testing.assert_allclose(
        distances, np.sort(squared, axis=1)[:, :7], atol=1e-5
    )
    assert opened.manifest["image_id"].tolist() == NAMES
    assert opened.searches_with == ("exact" if exact else "scann")
    assert opened.records_fingerprints == set()


def test_it_says_what_it_was_built_from(built, descriptors):
    metadata = json.loads(Path(built.path, "index.json").read_text())
    assert metadata["built_from"] == "vectors"
    assert metadata["export_fingerprint"] is None
    assert metadata["records_fingerprint"] is None
    assert (metadata["count"], metadata["dimension"]) == (40, 12)
    np.testing.assert_array_equal(built.descriptors, descriptors)
    siblings = Path(built.path).parent.iterdir()
    assert [path.name for path in siblings] == ["index"]


def test_positions_and_places_are_in_the_manifest(tmp_path, descriptors):
    positions = np.arange(80.0).reshape(40, 2)
    positions[3] = np.nan
    opened = Index.build(
        descriptors,
        image_ids=NAMES,
        out=tmp_path / "index",
        positions=positions,
        utm_zone="17T",
        place_ids=np.arange(40) // 4,
    )
    rows = opened.manifest
    np.testing.assert_array_equal(manifest.coordinates(rows), positions)
    assert set(rows["utm_zone"]) == {"17T"}
    assert rows["place_id"].tolist() == [str(row // 4) for row in range(40)]
    assert rows["heading_deg"].isna().all()
    assert set(rows["frame"]) == {-1}
    # As manifests that stages write.
    known = Records(toy_search.records(tmp_path)).manifest
    assert rows.dtypes.equals(known.dtypes[rows.columns])


def test_a_memory_map_and_half_precision(tmp_path, descriptors):
    np.save(tmp_path / "all.npy", descriptors.astype(np.float64))
    opened = Index.build(
        np.load(tmp_path / "all.npy", mmap_mode="r"),
        image_ids=NAMES,
        out=tmp_path / "index",
        dtype="float16",
    )
    assert opened.descriptors.dtype == np.float16
    np.testing.assert_array_equal(
        opened.descriptors, descriptors.astype(np.float16)
    )


def test_scann_follows_the_rules_of_the_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    many = toy_index.clustered(2, 40, 25, 16)
    opened = Index.build(
        many,
        image_ids=[str(row) for row in range(1000)],
        out=tmp_path / "index",
    )
    rules = scann_searcher.rules(count=1000, dimension=16)
    assert opened.metadata["segments"][0]["scann"] == rules
    _, distances = opened.search(many[:50], 10)
    _, exact = exact_search.nearest(many[:50], many, 10)
    assert exact_search.recall_of_search(distances, exact) > 0.9
    # Tuning takes no images, as compaction does not.
    index_changes.compact(
        index=opened.path, tuning=TuningOptions(target_recall=0.9)
    )
    assert Index.open(opened.path).metadata["target_recall"] == 0.9


def test_images_are_removed(built, tmp_path):
    (tmp_path / "ids.txt").write_text("00.jpg\n39.jpg\n")
    index_changes.remove(index=built.path, ids=tmp_path / "ids.txt")
    index_changes.compact(index=built.path, tuning=TuningOptions())
    opened = Index.open(built.path)
    assert opened.manifest["image_id"].tolist() == NAMES[1:-1]
    assert opened.metadata["built_from"] == "vectors"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_index.build(tmp_path_factory.mktemp("toy"))


def test_stages_that_embed_refuse_it(built, toy):
    servable = serving.load(toy["export"])
    message = "an export built from records.*Index.build made from desc"
    with pytest.raises(ValueError, match=message):
        built.check_export(servable)
    with pytest.raises(ValueError, match=message):
        built.check_records(Records(toy["records"]), split="test")
    inputs = {"records": toy["records"], "export": toy["export"]}
    with pytest.raises(ValueError, match=message):
        index_changes.add(index=built.path, **inputs)
    with pytest.raises(ValueError, match="Index.build made from descriptors"):
        index.run(IndexOptions(**inputs, index=built.path))
    assert len(Index.open(built.path).manifest) == 40


def test_an_index_is_replaced_and_another_folder_is_not(
    built, tmp_path, descriptors
):
    again = Index.build(descriptors[:5], image_ids=NAMES[:5], out=built.path)
    assert len(again.manifest) == 5
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match="also holds .*photo.jpg"):
        Index.build(descriptors, image_ids=NAMES, out=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_ids": []}, "at least one image.*Received: 0 image_ids"),
        ({"image_ids": [*NAMES[1:], "01.jpg"]}, "40 image_ids, 39 of them"),
        ({"image_ids": NAMES[1:]}, r"39 image_ids.*shape=\(40, 12\)"),
        ({"positions": np.zeros((40, 3))}, r"positions \[40, 2\].*\(40, 3\)"),
        ({"place_ids": ["a"]}, r"40 place_ids.*len\(place_ids\)=1"),
        (
            {"dtype": "int4"},
            "float32, float16, int8, product, binary. Received: dtype='int4'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, descriptors, changes, message):
    options = {"image_ids": NAMES, "out": tmp_path / "index", **changes}
    with pytest.raises(ValueError, match=message):
        Index.build(descriptors, **options)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("factor", [2, np.nan])
def test_descriptors_that_are_not_unit_vectors(tmp_path, descriptors, factor):
    wrong = descriptors.copy()
    wrong[7] *= factor
    with pytest.raises(ValueError, match="of length 1. Received.*for 07.jpg"):
        Index.build(wrong, image_ids=NAMES, out=tmp_path / "index")
    with pytest.raises(ValueError, match=r"\[N, D\].*shape=\(40, 12, 1\)"):
        Index.build(wrong[..., None], image_ids=NAMES, out=tmp_path / "index")
    assert not any(tmp_path.iterdir())
