"""Local features beside an index: stored, resumed, bound, read."""

import json
import shutil

import numpy as np
import pytest
import toy_index
import toy_search

from sare_tf import index
from sare_tf.local_features import extractors, stored_features
from sare_tf.local_features.features import LocalFeatures
from sare_tf.records.records import Records
from sare_tf.search import local_index
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions

COUNT, SIDE = 12, 64


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """18 database images, 3 of each place."""
    return toy_index.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def built(toy, tmp_path):
    return toy_index.copy(toy, tmp_path)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(stored_features, "_PART_IMAGES", 5)


def _store(built, **options):
    options = {
        "local_features": "rootsift",
        "local_count": COUNT,
        "local_side": SIDE,
        "records": built["records"],
        "export": built["export"],
        **options,
    }
    return index.run(IndexOptions(index=built["out"], **options))


def _extractor(count=COUNT):
    return extractors.load("rootsift", count=count, longest_side=SIDE)


def _folder(built):
    return built["out"] / stored_features.FOLDER


def test_stored_features_are_those_of_the_images(built):
    out = _store(built)
    opened, extractor = Index.open(out), _extractor()
    records = Records(built["records"])
    source = local_index.source_of(opened, extractor, None)
    computed = local_index.source_of(
        Index.open(_plain(built)), extractor, records
    )
    rows = [17, 0, 5, 4]
    found = 0  # Corners in 32 x 32 pixels: few.
    for stored, exact in zip(source(rows), computed(rows), strict=True):
        found += stored.num_valid
        assert (stored.width, stored.height) == (32, 32)
        np.testing.assert_array_equal(stored.valid, exact.valid)
        # A 65,535th of 32 pixels; float16 has 11 bits.
        np.testing.assert_allclose(
            stored.keypoints, exact.keypoints.clip(0), atol=32 / 65_535
        )
        np.testing.assert_allclose(stored.scores, exact.scores, rtol=2**-11)
        np.testing.assert_allclose(stored.vectors, exact.vectors, atol=2**-11)
        lengths = np.linalg.norm(stored.vectors[stored.valid], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)
    assert found >= 10
    card = json.loads((_folder(built) / "features.json").read_text())
    assert card["bytes_per_image"] == 12 + COUNT * (4 + 2 + 2 * 128)
    assert (card["images"], len(card["parts"])) == (18, 4)


def _plain(built):
    """The folder of the index without its local features."""
    other = built["out"].with_name("plain")
    if not other.exists():
        shutil.copytree(
            built["out"],
            other,
            ignore=shutil.ignore_patterns(stored_features.FOLDER),
        )
    return other


def test_a_build_that_stopped_resumes(built, monkeypatch):
    real, calls = stored_features._write_part, []

    def stopped(*arguments):
        if len(calls) == 2:
            raise OSError("stopped")
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(stored_features, "_write_part", stopped)
    with pytest.raises(OSError, match="stopped"):
        _store(built)
    opened = Index.open(built["out"])
    with pytest.raises(ValueError, match="without local features, and no rec"):
        local_index.source_of(opened, _extractor(), None)
    resumed = []
    monkeypatch.setattr(
        stored_features,
        "_write_part",
        lambda *arguments: resumed.append(1) or real(*arguments),
    )
    _store(built)
    assert len(resumed) == 2
    assert local_index.source_of(opened, _extractor(), None)([0])
    _store(built)
    assert len(resumed) == 2


def test_features_of_another_extractor_are_refused(built):
    _store(built)
    with pytest.raises(ValueError, match="rootsift, 12 of an image, with fing"):
        local_index.source_of(Index.open(built["out"]), _extractor(9), None)


def test_features_of_a_changed_index_are_made_anew(
    built, tmp_path, caplog, monkeypatch
):
    _store(built)
    ids = tmp_path / "ids.txt"
    name = Index.open(built["out"]).manifest["image_id"].iloc[17]
    ids.write_text(name)
    index.run(IndexOptions(index=built["out"], remove_ids=ids))
    opened, records = Index.open(built["out"]), Records(built["records"])
    source = local_index.source_of(opened, _extractor(), records)
    assert "the index was changed since" in caplog.text
    assert source([0])[0].width == 32
    written = []
    real = stored_features._write_part
    monkeypatch.setattr(
        stored_features,
        "_write_part",
        lambda *arguments: written.append(arguments) or real(*arguments),
    )
    _store(built)
    # Only the last part had the image that was removed.
    assert [len(encoded) for *_, encoded in written] == [2]
    source = local_index.source_of(opened, _extractor(), None)
    assert source([16])[0].width == 32


def test_added_images_come_from_their_records(built, tmp_path):
    more = toy_search.records(tmp_path / "more", places=2, first_place=9)
    _store(built, add_records=more)
    opened = Index.open(built["out"])
    assert len(opened.manifest) == 24
    source = local_index.source_of(opened, _extractor(), None)
    assert all(one.width == 32 for one in source(range(24)))
    with pytest.raises(ValueError, match="without 6 of 24 images"):
        local_index.store(
            built["out"], _extractor(), records=[built["records"]]
        )


def test_damaged_features_are_refused(built):
    _store(built)
    part = next(_folder(built).glob("*.npy"))
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    with pytest.raises(ValueError, match="with a damaged part"):
        local_index.source_of(Index.open(built["out"]), _extractor(), None)


def test_an_image_that_the_records_lack_has_no_features(built, tmp_path):
    """As after --add_records, if only the first records are named."""
    more = toy_search.records(tmp_path / "more", places=2, first_place=9)
    index.run(
        IndexOptions(
            index=built["out"], add_records=more, export=built["export"]
        )
    )
    records = Records(built["records"])
    source = local_index.source_of(
        Index.open(built["out"]), _extractor(), records
    )
    there, absent = source([0, 20])
    assert there.width == 32
    assert (absent.width, absent.num_valid) == (0, 0)
    assert source.absent == {20}


def test_an_index_of_vectors_has_no_images(tmp_path):
    Index.build(
        toy_search.unit(0, 3, 8), image_ids=["a", "b", "c"], out=tmp_path / "i"
    )
    with pytest.raises(ValueError, match="made from descriptors"):
        local_index.source_of(Index.open(tmp_path / "i"), _extractor(), None)


def test_an_unknown_extractor_is_refused_before_the_index_is_built(
    toy, tmp_path
):
    with pytest.raises(FileNotFoundError, match="rootsift, xfeat or the fold"):
        index.run(
            IndexOptions(
                records=toy["records"],
                export=toy["export"],
                index=tmp_path / "new",
                local_features=str(tmp_path / "none"),
            )
        )
    assert not (tmp_path / "new").exists()


def test_a_keypoint_outside_of_the_image_is_moved_to_its_border(tmp_path):
    class One:
        name, fingerprint, count, dimension = "one", "f", 2, 4

        def __call__(self, encoded):
            return [
                LocalFeatures.of_found(
                    np.array([[-0.4, 3.0]]),
                    np.eye(1, 4),
                    np.ones(1),
                    count=2,
                    width=8,
                    height=4,
                )
            ]

    images = {"image_ids": ["a"], "sha256s": ["b"]}
    stored_features.store(
        tmp_path, One(), read=lambda rows: iter([b""]), **images
    )
    stored = stored_features.open_of([tmp_path], One(), **images)
    np.testing.assert_allclose(stored[0].keypoints[0], [0, 3], atol=1e-3)
    assert len(stored) == 1
