"""Adding to an index, removing from it, and making one segment of it again."""

import numpy as np
import pytest
import toy_index
import toy_search
from absl import flags
from absl.testing import flagsaver

from sare_tf import index, serving
from sare_tf.records.records import Records
from sare_tf.search import (
    embedding,
    index_changes,
    segment_building,
    segment_merging,
    segments,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import CODES, IndexOptions, TuningOptions


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """records, export and index of 18 database images, 3 of each place."""
    return toy_index.build(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def built(toy, tmp_path):
    """The same with an index of the test's own."""
    return toy_index.copy(toy, tmp_path)


def _options(built):
    inputs = {name: built[name] for name in ("records", "export")}
    return IndexOptions(**inputs, index=built["out"])


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """Records of 4 database images of 2 other places."""
    return toy_search.records(
        tmp_path_factory.mktemp("more"), views=(2, 1), places=2, first_place=9
    )


def _added(built, more):
    return {
        "index": built["out"],
        "records": more,
        "export": built["export"],
    }


def test_images_are_added_without_building_again(built, more):
    before = toy_index.bytes_of(built["out"])
    index_changes.add(**_added(built, more))
    opened = Index.open(built["out"])
    rows = Records(more).rows("test", "database")
    names = opened.manifest["image_id"].tolist()
    assert names[18:] == rows["image_id"].tolist()
    embedded = embedding.embed(
        serving.load(built["export"]),
        Records(more).read_images(rows),
        names[18:],
    )
    np.testing.assert_array_equal(opened.descriptors[18:22], embedded)
    found, distances = opened.search(embedded, 1)
    assert found[:, 0].tolist() == [18, 19, 20, 21]
    np.testing.assert_allclose(distances, 0, atol=1e-5)
    # Only index.json changed.
    after = toy_index.bytes_of(built["out"])
    kept = {name: after[name] for name in before}
    assert {name for name in kept if kept[name] != before[name]} == {
        "index.json"
    }
    fingerprints = {Records(built["records"]).fingerprint}
    fingerprints.add(Records(more).fingerprint)
    assert opened.records_fingerprints == fingerprints


def test_images_are_added_once(built, more):
    index_changes.add(**_added(built, more))
    with pytest.raises(ValueError, match="4 that it holds, such as"):
        index_changes.add(**_added(built, more))
    assert Index.open(built["out"]).metadata["count"] == 22


def test_a_failed_addition_resumes(built, more, monkeypatch):
    monkeypatch.setattr(segment_building, "_RECORD_EVERY", 1)
    before = Index.open(built["out"]).metadata
    for after, expected in ((3, 3), (9, 1)):
        servable = toy_index.StoppedServable(
            built["export"], toy_index.fail, after
        )
        monkeypatch.setattr(serving, "load", lambda export, it=servable: it)
        try:
            index_changes.add(**_added(built, more), batch_size=1)
        except OSError:
            assert Index.open(built["out"]).metadata == before
        assert servable.batches == expected
    assert Index.open(built["out"]).metadata["count"] == 22
    names = {path.name for path in built["out"].iterdir()}
    assert names == {
        *("index.json", "manifest.parquet", "descriptors.npy", "scann"),
        "added-00001",
    }


def test_an_addition_that_was_killed_last_is_made_again(
    built, more, monkeypatch
):
    def killed(folder, metadata):
        raise KeyboardInterrupt

    before = Index.open(built["out"]).metadata
    monkeypatch.setattr(segment_merging, "write_change", killed)
    with pytest.raises(KeyboardInterrupt):
        index_changes.add(**_added(built, more))
    assert Index.open(built["out"]).metadata == before
    monkeypatch.undo()
    index_changes.add(**_added(built, more))
    assert Index.open(built["out"]).metadata["count"] == 22


def test_an_index_whose_replacement_was_killed_is_put_back(built, more):
    out = built["out"]
    index_changes.add(**_added(built, more))
    for again in (
        lambda: index.run(_options(built)),
        lambda: index_changes.compact(index=out, tuning=TuningOptions()),
    ):
        # Between the two renames of a replacement.
        out.rename(out.with_name(".index.replaced"))
        again()
        assert Index.open(out).metadata["count"] == 22
    assert [path.name for path in out.parent.iterdir()] == ["index"]


def test_a_changed_index_is_used_with_the_records_of_either(built, more):
    index_changes.add(**_added(built, more))
    opened = Index.open(built["out"])
    for records in (built["records"], more):
        opened.check_records(Records(records), split="test")


def test_images_of_another_export_are_not_added(built, more, tmp_path):
    other = toy_search.export(tmp_path / "other", length=1.00001)
    with pytest.raises(ValueError, match="Expected the export that built"):
        index_changes.add(index=built["out"], records=more, export=other)


def _ids(tmp_path, *names, encoding="utf-8"):
    path = tmp_path / "ids.txt"
    path.write_text("".join(f"{name}\n" for name in names), encoding)
    return path


def test_images_are_removed_and_added_again(built, more, tmp_path):
    out = built["out"]
    index_changes.add(**_added(built, more))
    names = Index.open(out).manifest["image_id"].tolist()
    index_changes.remove(index=out, ids=_ids(tmp_path, names[3], "", names[19]))
    # As PowerShell writes it.
    ids = _ids(tmp_path, names[0], names[0], encoding="utf-16")
    index_changes.remove(index=out, ids=ids)
    opened = Index.open(out)
    kept = [name for row, name in enumerate(names) if row not in (0, 3, 19)]
    assert opened.manifest["image_id"].tolist() == kept
    rows, _ = opened.search(opened.descriptors[:], 19)
    assert rows[:, 0].tolist() == list(range(19))
    assert (np.sort(rows, axis=1) == np.arange(19)).all()
    # What a killed change left, and what the last one replaced, is cleared.
    (out / "added-00009").mkdir()
    (out / "removed-00009.npy").touch()
    index_changes.remove(index=out, ids=_ids(tmp_path, *names[20:], names[18]))
    assert {path.name for path in out.glob("*d-*")} == {
        "added-00001",
        "removed-00004.npy",
    }
    # The added images are all gone, and may come again.
    index_changes.add(**_added(built, more))
    again = Index.open(out).manifest["image_id"].tolist()
    assert again == [*kept[:16], *names[18:]]


def test_removal_refuses_what_it_cannot_mean(built, tmp_path):
    out = built["out"]
    names = Index.open(out).manifest["image_id"].tolist()
    before = toy_index.bytes_of(out)
    for wrong, message in (
        ([names[0], "x.jpg", "y.jpg"], "lacks 2: x.jpg, y.jpg"),
        ([], "with 0 ids"),
        (names, "with all 18 of the index"),
    ):
        with pytest.raises(ValueError, match=message):
            index_changes.remove(index=out, ids=_ids(tmp_path, *wrong))
    with pytest.raises(FileNotFoundError, match="Expected a text file"):
        index_changes.remove(index=out, ids=tmp_path / "nothing.txt")
    assert toy_index.bytes_of(out) == before


def test_changes_are_made_to_one_index(built, more):
    for change, options in (
        (index_changes.compact, {"tuning": TuningOptions()}),
        (index_changes.remove, {"ids": "ids.txt"}),
        (index_changes.add, {"records": more, "export": built["export"]}),
    ):
        with pytest.raises(FileNotFoundError, match="folder of one index"):
            change(index=built["out"].parent, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
def test_compaction_changes_nothing_but_the_files(
    toy, more, tmp_path, monkeypatch, dtype
):
    out = tmp_path / "index"
    inputs = {"records": toy["records"], "export": toy["export"]}
    index.run(IndexOptions(**inputs, index=out, index_dtype=dtype))
    index_changes.add(index=out, records=more, export=toy["export"])
    names = Index.open(out).manifest["image_id"].tolist()
    index_changes.remove(index=out, ids=_ids(tmp_path, names[3], names[20]))
    before = Index.open(out, exact=True)
    descriptors = before.descriptors[:]
    found = before.search(toy_search.unit(4, 9, toy_search.DIMENSION), 20)
    # In several steps.
    monkeypatch.setattr(
        segment_merging, "_COPIED_NUMBERS", 3 * toy_search.DIMENSION
    )
    index_changes.compact(index=out, tuning=TuningOptions())
    after = Index.open(out, exact=True)
    files = {"descriptors.npy", "scann"}
    if dtype in CODES:
        files = {"codes.npy", "codec.npz"}
    # The third change. Nothing is left of the segments that were merged.
    assert {path.name for path in out.iterdir()} == {
        *("index.json", "merged-00003"),
    }
    assert {path.name for path in (out / "merged-00003").iterdir()} == {
        *("manifest.parquet", *files),
    }
    assert after.manifest.equals(before.manifest)
    assert after.metadata["dtype"] == dtype
    assert after.descriptors.dtype == descriptors.dtype
    np.testing.assert_array_equal(after.descriptors, descriptors)
    again = after.search(toy_search.unit(4, 9, toy_search.DIMENSION), 20)
    np.testing.assert_array_equal(again[0], found[0])
    np.testing.assert_array_equal(again[1], found[1])
    assert after.records_fingerprints == before.records_fingerprints
    expected = "exact" if dtype in CODES else "scann"
    assert Index.open(out).searches_with == expected


def test_codes_that_were_stopped_need_no_images_again(
    toy, tmp_path, monkeypatch
):
    options = IndexOptions(
        records=toy["records"],
        export=toy["export"],
        index=tmp_path / "index",
        index_dtype="int8",
    )
    finish = segments.finish

    def stopped(*arguments, **others):
        finish(*arguments, **others)
        raise KeyboardInterrupt

    monkeypatch.setattr(segments, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        index.run(options)
    monkeypatch.undo()
    monkeypatch.setattr(embedding, "embed_batches", lambda *_, **__: iter([]))
    index.run(options)
    opened = Index.open(options.index)
    exact = np.asarray(Index.open(toy["out"]).descriptors)
    np.testing.assert_allclose(np.asarray(opened.descriptors), exact, atol=0.01)
    assert not (tmp_path / "index" / "descriptors.npy").exists()


def test_a_change_during_compaction_is_not_lost(built, tmp_path, monkeypatch):
    out = built["out"]
    names = Index.open(out).manifest["image_id"].tolist()
    finish = segments.finish

    def remove_meanwhile(*arguments, **options):
        index_changes.remove(index=out, ids=_ids(tmp_path, names[5]))
        return finish(*arguments, **options)

    monkeypatch.setattr(segments, "finish", remove_meanwhile)
    with pytest.raises(ValueError, match="with 1 changes, not 0"):
        index_changes.compact(index=out, tuning=TuningOptions())
    monkeypatch.undo()
    assert Index.open(out).metadata["count"] == 17
    index_changes.compact(index=out, tuning=TuningOptions())
    assert Index.open(out).metadata["count"] == 17


def test_a_changed_index_is_kept(built, more, tmp_path):
    out = built["out"]
    index_changes.add(**_added(built, more))
    index.run(_options(built))
    assert Index.open(out).metadata["count"] == 22
    other = toy_search.export(tmp_path / "other", length=1.00001)
    with pytest.raises(ValueError, match="added or removed 1 times"):
        index.run(
            IndexOptions(records=built["records"], export=other, index=out)
        )
    (out / "descriptors.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="Expected a whole index"):
        index.run(_options(built))


def test_main_makes_one_change_at_a_time(built, more, tmp_path):
    flags.FLAGS.mark_as_parsed()
    folders = {"index": str(built["out"]), "export": str(built["export"])}
    with (
        flagsaver.flagsaver(compact=True, remove_ids="ids.txt"),
        pytest.raises(ValueError, match="--remove_ids, --compact. Run one"),
    ):
        index.main(["index"])
    with flagsaver.flagsaver(**folders, add_records=str(more)):
        index.main(["index"])
    names = Index.open(built["out"]).manifest["image_id"].tolist()
    ids = _ids(tmp_path, names[0], names[21])
    with flagsaver.flagsaver(**folders, remove_ids=str(ids)):
        index.main(["index"])
    with flagsaver.flagsaver(**folders, compact=True):
        index.main(["index"])
    opened = Index.open(built["out"])
    assert opened.manifest["image_id"].tolist() == names[1:21]
    assert len(opened.metadata["segments"]) == 1
