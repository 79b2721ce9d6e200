"""Building, opening and searching an index, with a real export and ScaNN."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import toy_damage
import toy_index
import toy_search
from absl import flags
from absl.testing import flagsaver

from sare_tf import index, locate, serving
from sare_tf.pages.options import LocateOptions
from sare_tf.records.records import Records
from sare_tf.runtime import atomic_files
from sare_tf.search import (
    embedding,
    exact_search,
    scann_searcher,
    scann_tuning,
    segment_building,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions, TuningOptions


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """records, export and index of 18 database images, 3 of each place."""
    return toy_index.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def built(toy, tmp_path):
    """The same with an index of the test's own."""
    return toy_index.copy(toy, tmp_path)


def _inputs(built):
    """Arguments of `IndexOptions`."""
    inputs = {name: built[name] for name in ("records", "export")}
    return {**inputs, "index": built["out"]}


def _database(toy):
    opened = Records(toy["records"])
    rows = opened.rows("test", "database")
    return rows, list(opened.read_images(rows))


def test_row_i_is_the_descriptor_of_manifest_row_i(toy):
    rows, images = _database(toy)
    opened = Index.open(toy["out"])
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
    opened = Index.open(toy["out"], exact=exact)
    assert opened.searches_with == ("exact" if exact else "scann")
    queries = toy_search.unit(0, 7, toy_search.DIMENSION)
    rows, distances = opened.search(queries, k)
    _, expected = exact_search.nearest(queries, opened.descriptors, k)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    of_rows = ((queries[:, None] - opened.descriptors[rows]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, of_rows, atol=1e-5)
    assert (rows.dtype, distances.dtype) == (np.int64, np.float32)


def test_an_indexed_image_finds_itself_after_a_move(built, tmp_path):
    moved = tmp_path / "elsewhere" / "index"
    shutil.copytree(built["out"], moved)
    shutil.rmtree(built["out"])
    opened = Index.open(moved)
    rows, distances = opened.search(opened.descriptors, 1)
    assert rows[:, 0].tolist() == list(range(18))
    assert distances.min() >= 0
    np.testing.assert_allclose(distances, 0, atol=1e-5)


def test_no_queries(toy):
    empty = np.zeros((0, toy_search.DIMENSION), np.float32)
    rows, distances = Index.open(toy["out"]).search(empty, 3)
    assert rows.shape == distances.shape == (0, 3)


def test_the_same_inputs_keep_the_index(built):
    before = (built["out"] / "index.json").stat().st_mtime_ns
    index.run(IndexOptions(**_inputs(built)))
    assert (built["out"] / "index.json").stat().st_mtime_ns == before


def test_another_export_replaces_the_index(built, tmp_path):
    # Within the tolerance of unit length, so that only the fingerprint tells.
    other = toy_search.export(tmp_path / "other", length=1.00001)
    index.run(
        IndexOptions(records=built["records"], export=other, index=built["out"])
    )
    metadata = Index.open(built["out"]).metadata
    assert metadata["export_fingerprint"] == serving.load(other).fingerprint
    siblings = {path.name for path in built["out"].parent.iterdir()}
    assert siblings == {"index", "other"}


def test_check_export_refuses_another(built, tmp_path):
    other = serving.load(toy_search.export(tmp_path / "other", length=1.00001))
    opened = Index.open(built["out"])
    opened.check_export(serving.load(built["export"]))
    with pytest.raises(ValueError, match="Expected the export that built"):
        opened.check_export(other)


@pytest.mark.parametrize("name", ["descriptors.npy", "manifest.parquet"])
def test_a_damaged_index_is_refused_then_built_again(built, name):
    whole = (built["out"] / name).read_bytes()
    (built["out"] / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="Expected a whole index"):
        Index.open(built["out"])
    index.run(IndexOptions(**_inputs(built)))
    assert Index.open(built["out"]).descriptors.shape[0] == 18


def test_lost_scann_files_are_refused(built):
    shutil.rmtree(built["out"] / "scann")
    with pytest.raises(ValueError, match="Expected a whole index"):
        Index.open(built["out"])
    Index.open(built["out"], exact=True)


def test_damaged_scann_files_are_built_again(built, caplog):
    toy_damage.flip(built["out"] / "scann" / "dataset.npy", 500)
    with pytest.raises(ValueError, match="scann/dataset.npy: not as written"):
        Index.open(built["out"])
    index.run(IndexOptions(**_inputs(built)))
    assert "Building ScaNN again" in caplog.text
    assert len(Index.open(built["out"]).manifest) == 18


def test_manifest_of_another_length_is_refused(built):
    toy_damage.edit(built["out"] / "index.json", count=17)
    with pytest.raises(ValueError, match="there are not 17 images"):
        Index.open(built["out"])


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="sare_tf.index"):
        Index.open(tmp_path / "nothing")


def test_a_folder_of_someone_else_is_left_alone(toy, tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="also holds .*holiday.jpg"):
        index.run(
            IndexOptions(
                records=toy["records"], export=toy["export"], index=tmp_path
            )
        )
    assert (tmp_path / "holiday.jpg").exists()
    with pytest.raises(ValueError, match="which is a file"):
        atomic_files.check_replaceable(tmp_path / "holiday.jpg", names=set())


@pytest.mark.parametrize("length", [0.5, float("nan")])
def test_descriptors_that_are_not_unit_name_the_image(toy, tmp_path, length):
    export = toy_search.export(tmp_path / "export", length=length)
    rows, _ = _database(toy)
    with pytest.raises(ValueError, match="of length 1. Received") as caught:
        index.run(
            IndexOptions(
                records=toy["records"], export=export, index=tmp_path / "index"
            )
        )
    assert rows["image_id"][0] in str(caught.value)
    assert not (tmp_path / "index").exists()


def test_embed_names_the_image_that_cannot_be_decoded(toy):
    servable = serving.load(toy["export"])
    good = toy_search.jpeg(0, 0)
    with pytest.raises(ValueError, match=r"decoded. Received: b.jpg, which"):
        embedding.embed(
            servable, [good, b"not an image", good], ["a.jpg", "b.jpg", "c.jpg"]
        )
    with pytest.raises(ValueError, match="Received: 0, 1, 2, 3, 4 and 2 more,"):
        embedding.embed(servable, 7 * [b""], list("0123456"))


def test_embed_refuses_a_stream_that_ends_early(toy):
    servable = serving.load(toy["export"])
    good = toy_search.jpeg(0, 0)
    with pytest.raises(ValueError, match="Expected 3 images. Received: 2"):
        embedding.embed(servable, iter([good, good]), list("abc"), batch_size=2)


def test_search_refuses_what_does_not_fit(toy):
    opened = Index.open(toy["out"])
    query = toy_search.unit(0, 1, toy_search.DIMENSION)
    with pytest.raises(ValueError, match="k of at least 1.*k=0"):
        opened.search(query, 0)
    for k in (2.5, "3", None):
        with pytest.raises(ValueError, match="k of at least 1, a whole number"):
            opened.search(query, k)
    with pytest.raises(ValueError, match=r"Expected descriptors \[Q, 48\]"):
        opened.search(toy_search.unit(0, 1, 5), 1)
    with pytest.raises(ValueError, match="length 2 for query 0"):
        opened.search(2 * query, 1)


@pytest.mark.parametrize("exact", [True, False])
def test_more_neighbours_than_images_are_all_images(toy, exact):
    opened = Index.open(toy["out"], exact=exact)
    queries = toy_search.unit(0, 4, toy_search.DIMENSION)
    rows, distances = opened.search(queries, 1000)
    assert rows.shape == distances.shape == (4, 18)
    np.testing.assert_array_equal(np.sort(rows, axis=1), [range(18)] * 4)
    np.testing.assert_array_equal(rows, opened.search(queries, 18)[0])


def test_without_scann_search_is_exact(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    out = tmp_path / "index"
    index.run(
        IndexOptions(records=toy["records"], export=toy["export"], index=out)
    )
    assert not (out / "scann").exists()
    assert Index.open(out).searches_with == "exact"
    # Nothing to tune, nothing to do.
    before = toy_index.bytes_of(out)
    index.run(
        IndexOptions(
            records=toy["records"],
            export=toy["export"],
            index=out,
            target_recall=0.9,
        )
    )
    assert toy_index.bytes_of(out) == before
    # One built with ScaNN serves, too.
    opened = Index.open(toy["out"])
    assert opened.searches_with == "exact"
    query = toy_search.unit(0, 2, toy_search.DIMENSION)
    expected = exact_search.nearest(query, opened.descriptors, 4)
    np.testing.assert_array_equal(opened.search(query, 4)[0], expected[0])
    # Once ScaNN is there the index is built again, with it.
    monkeypatch.undo()
    index.run(
        IndexOptions(records=toy["records"], export=toy["export"], index=out)
    )
    assert Index.open(out).searches_with == "scann"


def test_a_killed_run_resumes(toy, tmp_path, monkeypatch):
    # 18 images in batches of 2, safe on disk after 4, 8, ...: killed with 10
    # embedded.
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
import toy_damage
import toy_index
from sare_tf import index, serving
from sare_tf.search import segment_building
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions, TuningOptions
segment_building._RECORD_EVERY = 4
servable = toy_index.StoppedServable(
    {str(toy["export"])!r}, lambda: os.kill(os.getpid(), signal.SIGKILL), 5
)
serving.load = lambda export: servable
index.run(
    IndexOptions(
        records={str(toy["records"])!r},
        export="",
        index={str(tmp_path / "index")!r},
        batch_size=2,
    )
)
"""
    killed = subprocess.run([sys.executable, "-c", script], timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "index").exists()
    servable = toy_index.StoppedServable(
        toy["export"], toy_index.fail, after=99
    )
    monkeypatch.setattr(serving, "load", lambda export: servable)
    options = {"records": toy["records"], "export": "", "batch_size": 2}
    index.run(IndexOptions(**options, index=tmp_path / "index"))
    assert servable.batches == (18 - 8) / 2
    index.run(IndexOptions(**options, index=tmp_path / "undisturbed"))
    assert toy_index.bytes_of(tmp_path / "index") == toy_index.bytes_of(
        tmp_path / "undisturbed"
    )
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"index", "undisturbed"}


def test_after_an_error_a_run_resumes_unless_inputs_differ(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(segment_building, "_RECORD_EVERY", 4)
    out = tmp_path / "index"

    def run(after, **changed):
        servable = toy_index.StoppedServable(
            toy["export"], toy_index.fail, after
        )
        monkeypatch.setattr(serving, "load", lambda export: servable)
        options = {"records": toy["records"], "export": "", "batch_size": 4}
        try:
            index.run(IndexOptions(**{**options, **changed}, index=out))
        finally:
            batches = servable.batches
        return batches

    with pytest.raises(OSError, match="server is gone"):
        run(2)
    # 8 of 18 images are there, but in float32.
    with pytest.raises(OSError, match="server is gone"):
        run(3, index_dtype="float16")
    # 12 of 18 images are there: 2 batches are left.
    assert run(9, index_dtype="float16") == 2
    opened = Index.open(out)
    assert opened.descriptors.dtype == np.float16
    exact = Index.open(toy["out"]).descriptors.astype(np.float16)
    np.testing.assert_allclose(opened.descriptors, exact, atol=1e-3)


def test_rows_that_were_damaged_before_a_resume_are_embedded_again(
    toy, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(segment_building, "_RECORD_EVERY", 4)
    out = tmp_path / "index"
    batches = []
    for after in (2, 99):
        servable = toy_index.StoppedServable(
            toy["export"], toy_index.fail, after
        )
        monkeypatch.setattr(serving, "load", lambda _, to=servable: to)
        options = IndexOptions(
            records=toy["records"], export="", batch_size=4, index=out
        )
        if after == 2:
            with pytest.raises(OSError, match="server is gone"):
                index.run(options)
            path = tmp_path / ".index.unfinished" / "descriptors.npy"
            content = bytearray(path.read_bytes())
            content[-100] ^= 1
            path.write_bytes(content)
        else:
            index.run(options)
        batches.append(servable.batches)
    assert batches == [2, 5]
    assert "descriptors.npy was damaged since it was written" in caplog.text
    np.testing.assert_allclose(
        Index.open(out).descriptors,
        Index.open(toy["out"]).descriptors,
        atol=1e-6,
    )


def test_shards_of_the_records_are_one_index(toy, tmp_path):
    inputs = {"records": toy["records"], "export": toy["export"]}
    for number in range(4):
        out = tmp_path / "shards" / str(number)
        index.run(IndexOptions(**inputs, index=out, index_shard=f"{number}/4"))
    whole = Index.open(toy["out"], exact=True)
    parts = Index.open(tmp_path / "shards", exact=True)
    assert parts.manifest.equals(whole.manifest)
    assert [len(part.live) for part in parts.segments] == [4, 5, 4, 5]
    np.testing.assert_allclose(
        parts.descriptors[:], whole.descriptors, atol=1e-6
    )
    queries = toy_search.unit(4, 9, toy_search.DIMENSION)
    expected = exact_search.nearest(queries, parts.descriptors[:], 18)
    rows, distances = parts.search(queries, 18)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(distances, expected[1])
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(toy_search.jpeg(3, 0))
    [(_, answer)] = locate.run(
        LocateOptions(
            index=tmp_path / "shards", export=toy["export"], photos=[photo], k=1
        )
    )
    assert answer.matches[0].image_id == whole.manifest["image_id"][9]


@pytest.mark.parametrize("shard", ["1/1", "0/0", "-1/4", "1", "a/b", ""])
def test_a_shard_that_cannot_be(tmp_path, shard):
    inputs = {"records": "records", "export": "export"}
    with pytest.raises(ValueError, match="Expected a shard: a number from 0"):
        IndexOptions(**inputs, index=tmp_path / "index", index_shard=shard)


def test_more_shards_than_images(toy, tmp_path):
    inputs = {"records": toy["records"], "export": toy["export"]}
    with pytest.raises(ValueError, match="Expected at most 18 shards"):
        index.run(
            IndexOptions(**inputs, index=tmp_path / "index", index_shard="0/19")
        )


def test_another_target_builds_only_scann(built, monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("embedded again")

    monkeypatch.setattr(embedding, "embed_batches", refuse)
    index.run(IndexOptions(**_inputs(built), target_recall=0.9))
    metadata = Index.open(built["out"]).metadata
    assert metadata["target_recall"] == 0.9
    # Brute force has nothing to tune.
    assert metadata["segments"][0]["tuned"] is None
    (merged,) = built["out"].glob("merged-*/scann")
    shutil.rmtree(merged)
    index.run(IndexOptions(**_inputs(built), target_recall=0.9))
    assert Index.open(built["out"]).searches_with == "scann"


def test_a_choice_of_trees_builds_only_scann(built, monkeypatch):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    asked = []

    def tune(build, parameters, descriptors, *, tune_tree, keep, **_):
        asked.append(tune_tree)
        for leaves in (2, 3):
            keep(build({**parameters, "num_leaves": leaves}))
        return None

    monkeypatch.setattr(scann_tuning, "tune", tune)
    index.run(IndexOptions(**_inputs(built), target_recall=0.9))
    for _ in range(2):
        index.run(
            IndexOptions(**_inputs(built), target_recall=0.9, tune_tree=True)
        )
    assert asked == [False, True]
    opened = Index.open(built["out"])
    assert opened.metadata["tune_tree"]
    # The last one that was kept.
    assert opened.segments[0].searcher.parameters["num_leaves"] == 3
    assert len(list(built["out"].glob("**/scann*/"))) == 1


def test_a_choice_of_trees_needs_a_target(built):
    with pytest.raises(ValueError, match="Expected --target_recall with"):
        IndexOptions(**_inputs(built), tune_tree=True)
    with pytest.raises(ValueError, match="Expected --target_recall with"):
        TuningOptions(tune_tree=True)


def test_a_tuned_index_searches_as_it_was_tuned(built, monkeypatch):
    monkeypatch.setattr(scann_searcher, "TREE_FROM", 0)
    index.run(IndexOptions(**_inputs(built), target_recall=0.9))
    segment = Index.open(built["out"]).metadata["segments"][0]
    assert segment["tuned"]["target_recall"] == 0.9
    chosen = segment["tuned"]["chosen"]
    assert segment["scann"]["num_leaves_to_search"] == chosen["leaves"]
    assert segment["scann"]["reordering_num_neighbors"] == chosen["reordered"]
    [tree] = segment["tuned"]["trees"]
    assert chosen.items() >= tree["best"].items()
    searcher = Index.open(built["out"]).segments[0].searcher
    assert searcher.parameters == segment["scann"]


def test_main_reads_the_flags(toy, tmp_path):
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(
        records=str(toy["records"]),
        export=str(toy["export"]),
        index=str(tmp_path / "index"),
        split="test",
    ):
        index.main(["index"])
    assert Index.open(tmp_path / "index").metadata["count"] == 18


def test_main_asks_for_missing_flags():
    with (
        flagsaver.flagsaver(index="index", records=None),
        pytest.raises(ValueError, match="no value for: --records"),
    ):
        index.main(["index"])
