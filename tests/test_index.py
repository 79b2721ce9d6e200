"""Building, opening and searching an index, with a real export and ScaNN."""

import json
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
import toy_search
from absl import flags
from absl.testing import flagsaver

from sare_tf import files, index, retrieval, serving
from sare_tf.records import Records


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """records, export and index of 18 database images, 3 of each place."""
    root = tmp_path_factory.mktemp("toy")
    records = toy_search.records(root)
    export = toy_search.export(root / "export")
    out = root / "index"
    index.run(records=records, export=export, out=out, batch_size=4)
    return {"records": records, "export": export, "out": out}


@pytest.fixture
def built(toy, tmp_path):
    """The same with an index of the test's own."""
    shutil.copytree(toy["out"], tmp_path / "index")
    return {**toy, "out": tmp_path / "index"}


def _database(toy):
    opened = Records(toy["records"])
    rows = opened.rows("test", "database")
    return rows, list(opened.read_images(rows))


def test_row_i_is_the_descriptor_of_manifest_row_i(toy):
    rows, images = _database(toy)
    opened = index.Index.open(toy["out"])
    assert opened.manifest["image_id"].tolist() == rows["image_id"].tolist()
    servable = serving.load(toy["export"])
    for row, image in enumerate(images):
        np.testing.assert_allclose(
            opened.descriptors[row], servable([image])[0][0], atol=1e-6
        )
    assert opened.descriptors.dtype == np.float32
    norms = np.linalg.norm(opened.descriptors, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_metadata_says_what_it_was_made_from(toy):
    metadata = json.loads((toy["out"] / "index.json").read_text())
    assert metadata["count"] == 18
    assert metadata["dimension"] == toy_search.DIMENSION
    assert metadata["split"] == "test"
    assert metadata["segments"][0]["scann"] == {"searcher": "brute_force"}
    assert metadata["dtype"] == "float32"
    fingerprint = serving.load(toy["export"]).fingerprint
    assert metadata["export_fingerprint"] == fingerprint
    fingerprint = Records(toy["records"]).fingerprint
    assert metadata["records_fingerprint"] == fingerprint
    assert metadata["versions"]["tensorflow"] == tf.__version__


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("k", [1, 5, 18])
def test_search_finds_what_exact_search_finds(toy, exact, k):
    opened = index.Index.open(toy["out"], exact=exact)
    assert opened.searches_with == ("exact" if exact else "scann")
    queries = toy_search.unit(0, 7, toy_search.DIMENSION)
    rows, distances = opened.search(queries, k)
    _, expected = retrieval.nearest(queries, opened.descriptors, k)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    of_rows = ((queries[:, None] - opened.descriptors[rows]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, of_rows, atol=1e-5)
    assert (rows.dtype, distances.dtype) == (np.int64, np.float32)


def test_an_indexed_image_finds_itself_after_a_move(built, tmp_path):
    moved = tmp_path / "elsewhere" / "index"
    shutil.copytree(built["out"], moved)
    shutil.rmtree(built["out"])
    opened = index.Index.open(moved)
    rows, distances = opened.search(opened.descriptors, 1)
    assert rows[:, 0].tolist() == list(range(18))
    assert distances.min() >= 0
    np.testing.assert_allclose(distances, 0, atol=1e-5)


def test_no_queries(toy):
    empty = np.zeros((0, toy_search.DIMENSION), np.float32)
    rows, distances = index.Index.open(toy["out"]).search(empty, 3)
    assert rows.shape == distances.shape == (0, 3)


def test_the_same_inputs_keep_the_index(built):
    before = (built["out"] / "index.json").stat().st_mtime_ns
    index.run(**built)
    assert (built["out"] / "index.json").stat().st_mtime_ns == before


def test_another_export_replaces_the_index(built, tmp_path):
    # Within the tolerance of unit length, so that only the fingerprint tells.
    other = toy_search.export(tmp_path / "other", length=1.00001)
    index.run(records=built["records"], export=other, out=built["out"])
    metadata = index.Index.open(built["out"]).metadata
    assert metadata["export_fingerprint"] == serving.load(other).fingerprint
    siblings = {path.name for path in built["out"].parent.iterdir()}
    assert siblings == {"index", "other"}


def test_check_export_refuses_another(built, tmp_path):
    other = serving.load(toy_search.export(tmp_path / "other", length=1.00001))
    opened = index.Index.open(built["out"])
    opened.check_export(serving.load(built["export"]))
    with pytest.raises(ValueError, match="Expected the export that built"):
        opened.check_export(other)


@pytest.mark.parametrize("name", ["descriptors.npy", "manifest.parquet"])
def test_a_damaged_index_is_refused_then_built_again(built, name):
    whole = (built["out"] / name).read_bytes()
    (built["out"] / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="Expected a whole index"):
        index.Index.open(built["out"])
    index.run(**built)
    assert index.Index.open(built["out"]).descriptors.shape[0] == 18


def test_lost_scann_files_are_refused(built):
    shutil.rmtree(built["out"] / "scann")
    with pytest.raises(ValueError, match="Expected a whole index"):
        index.Index.open(built["out"])
    index.Index.open(built["out"], exact=True)


def test_manifest_of_another_length_is_refused(built):
    metadata = json.loads((built["out"] / "index.json").read_text())
    metadata["count"] = 17
    (built["out"] / "index.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="there are not 17 images"):
        index.Index.open(built["out"])


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="sare_tf.index"):
        index.Index.open(tmp_path / "nothing")


def test_a_folder_of_someone_else_is_left_alone(toy, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="also holds .*holiday.jpg"):
        index.run(records=toy["records"], export=toy["export"], out=tmp_path)
    assert (tmp_path / "holiday.jpg").exists()
    with pytest.raises(ValueError, match="which is a file"):
        files.check_replaceable(tmp_path / "holiday.jpg", names=set())


@pytest.mark.parametrize("length", [0.5, float("nan")])
def test_descriptors_that_are_not_unit_name_the_image(toy, tmp_path, length):
    export = toy_search.export(tmp_path / "export", length=length)
    rows, _ = _database(toy)
    with pytest.raises(ValueError, match="of length 1. Received") as caught:
        index.run(records=toy["records"], export=export, out=tmp_path / "index")
    assert rows["image_id"][0] in str(caught.value)
    assert not (tmp_path / "index").exists()


def test_embed_names_the_image_that_cannot_be_decoded(toy):
    servable = serving.load(toy["export"])
    good = toy_search.jpeg(0, 0)
    with pytest.raises(ValueError, match=r"decoded. Received: b.jpg, which"):
        index.embed(
            servable, [good, b"not an image", good], ["a.jpg", "b.jpg", "c.jpg"]
        )
    with pytest.raises(ValueError, match="Received: 0, 1, 2, 3, 4 and 2 more,"):
        index.embed(servable, 7 * [b""], list("0123456"))


def test_embed_refuses_a_stream_that_ends_early(toy):
    servable = serving.load(toy["export"])
    good = toy_search.jpeg(0, 0)
    with pytest.raises(ValueError, match="Expected 3 images. Received: 2"):
        index.embed(servable, iter([good, good]), list("abc"), batch_size=2)


def test_search_refuses_what_does_not_fit(toy):
    opened = index.Index.open(toy["out"])
    query = toy_search.unit(0, 1, toy_search.DIMENSION)
    for k in (0, 19):
        with pytest.raises(ValueError, match=f"1 to the 18 images.*k={k}"):
            opened.search(query, k)
    with pytest.raises(ValueError, match=r"Expected descriptors \[Q, 48\]"):
        opened.search(toy_search.unit(0, 1, 5), 1)
    with pytest.raises(ValueError, match="length 2 for query 0"):
        opened.search(2 * query, 1)


def test_without_scann_search_is_exact(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    out = tmp_path / "index"
    index.run(records=toy["records"], export=toy["export"], out=out)
    assert not (out / "scann").exists()
    assert index.Index.open(out).searches_with == "exact"
    # One built with ScaNN serves, too.
    opened = index.Index.open(toy["out"])
    assert opened.searches_with == "exact"
    query = toy_search.unit(0, 2, toy_search.DIMENSION)
    expected = retrieval.nearest(query, opened.descriptors, 4)
    np.testing.assert_array_equal(opened.search(query, 4)[0], expected[0])
    # Once ScaNN is there the index is built again, with it.
    monkeypatch.undo()
    index.run(records=toy["records"], export=toy["export"], out=out)
    assert index.Index.open(out).searches_with == "scann"


def test_main_reads_the_flags(toy, tmp_path):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(
        records=str(toy["records"]),
        export=str(toy["export"]),
        index=str(tmp_path / "index"),
        split="test",
    ):
        index.main(["index"])
    assert index.Index.open(tmp_path / "index").metadata["count"] == 18


def test_main_asks_for_missing_flags():
    with (
        flagsaver.flagsaver(records=None),
        pytest.raises(ValueError, match="no value for: --records"),
    ):
        index.main(["index"])
