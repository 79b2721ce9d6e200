"""Parts that an executor embeds make the index that a stream makes."""

import functools
import os
import pickle
import shutil

import numpy as np
import pytest
import toy_executor
import toy_search

from sare_tf import index, serving
from sare_tf.records.records import Records
from sare_tf.search import (
    embedded_parts,
    embedding,
    index_changes,
    segment_building,
)
from sare_tf.search.opened_index import Index
from sare_tf.search.options import IndexOptions


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Records of 18 database images, an export, and the index of a stream."""
    root = tmp_path_factory.mktemp("toy")
    toy = {
        "records": toy_search.records(root),
        "export": toy_search.export(root / "export"),
    }
    index.run(IndexOptions(**toy, index=root / "index", batch_size=2))
    return {**toy, "whole": contents(root / "index")}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Two batches of 2: five parts, the last of one batch."""
    monkeypatch.setattr(segment_building, "_RECORD_EVERY", 5)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(toy, out, *, executor=None, dtype="float32", **options):
    inputs = {name: toy[name] for name in ("records", "export")}
    return index.run(
        IndexOptions(
            **{**inputs, "batch_size": 2, **options},
            index_dtype=dtype,
            index=out,
        ),
        executor=executor,
    )


def task_of(toy, folder, **changes):
    opened, servable = Records(toy["records"]), serving.load(toy["export"])
    options = {
        "folder": folder,
        "records": opened.path,
        "records_fingerprint": opened.fingerprint,
        "export_fingerprint": servable.fingerprint,
        "batch_size": 2,
        "dtype": "float32",
    }
    return embedded_parts.Task(**{**options, **changes})


def embed_part(toy, folder, **changes):
    rows = Records(toy["records"]).rows("test", "database")
    part = embedded_parts.plan(rows, first=4, part_rows=4)[0]
    embedded_parts.embed(
        part,
        serving.load(toy["export"]),
        task=task_of(toy, folder, **changes),
    )
    return part


def test_a_part_is_whole_batches(toy):
    rows = Records(toy["records"]).rows("test", "database")
    parts = embedded_parts.plan(rows, first=4, part_rows=6)
    assert [(part.first, part.stop) for part in parts] == [
        (4, 10),
        (10, 16),
        (16, 18),
    ]
    positions = np.concatenate([part.positions for part in parts])
    assert positions.tolist() == rows.index[4:].tolist()
    assert len(pickle.dumps(parts[0])) < 1000


def test_the_descriptors_of_a_part(toy, tmp_path):
    part = embed_part(toy, tmp_path)
    opened = Records(toy["records"])
    rows = opened.rows("test", "database").iloc[4:8]
    servable = serving.load(toy["export"])
    for found, image in zip(
        embedded_parts.read(part, tmp_path),
        opened.read_images(rows),
        strict=True,
    ):
        np.testing.assert_allclose(found, servable([image])[0][0], atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000000004-000000000008.json",
        "000000000004-000000000008.npy",
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parts_make_the_same_files(toy, tmp_path, dtype):
    done = run(
        toy,
        tmp_path / "index",
        executor=toy_executor.PicklingExecutor(),
        dtype=dtype,
    )
    run(toy, tmp_path / "streamed", dtype=dtype)
    assert contents(done) == contents(tmp_path / "streamed")
    if dtype == "float32":
        assert contents(done) == toy["whole"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"index", "streamed"}


def test_added_images_are_embedded_in_parts_too(toy, tmp_path):
    more = toy_search.records(tmp_path, views=(3, 1), places=2, first_place=9)
    for name, options in (
        ("streamed", {}),
        ("parts", {"executor": toy_executor.PicklingExecutor()}),
    ):
        run(toy, tmp_path / name)
        index_changes.add(
            index=tmp_path / name,
            records=more,
            export=toy["export"],
            batch_size=2,
            **options,
        )
    found = contents(tmp_path / "parts")
    assert found == contents(tmp_path / "streamed")
    assert "added-00001/descriptors.npy" in found


def failing():
    """An executor that dies after two parts."""
    return toy_executor.PicklingExecutor(only=2)


def test_finished_parts_are_kept(toy, tmp_path):
    """The next run with an executor embeds the others only."""
    with pytest.raises(OSError, match="worker lost"):
        run(toy, tmp_path / "index", executor=failing())
    assert not (tmp_path / "index").exists()
    cut = next((tmp_path / ".index.unfinished/parts").glob("*.npy"))
    cut.write_bytes(cut.read_bytes()[:-1])
    without_receipt = cut.with_name("000000000016-000000000018.npy")
    without_receipt.touch()
    executor = toy_executor.PicklingExecutor()
    run(toy, tmp_path / "index", executor=executor)
    assert sorted(part.first for part in executor.given) == sorted(
        [int(cut.name[:12]), 8, 12, 16]
    )
    assert contents(tmp_path / "index") == toy["whole"]


def test_a_run_without_executor_takes_finished_parts(
    toy, tmp_path, monkeypatch
):
    embedded, embed_batches = [], embedding.embed_batches

    def noting(servable, images, image_ids, **options):
        embedded.append(len(image_ids))
        return embed_batches(servable, images, image_ids, **options)

    with pytest.raises(OSError, match="worker lost"):
        run(toy, tmp_path / "index", executor=failing())
    monkeypatch.setattr(embedding, "embed_batches", noting)
    run(toy, tmp_path / "index")
    assert embedded == [10]
    assert contents(tmp_path / "index") == toy["whole"]


def test_a_run_killed_while_parts_are_put_together_resumes(
    toy, tmp_path, monkeypatch
):
    read = embedded_parts.read

    def killed(part, folder):
        if part.first == 8:
            raise KeyboardInterrupt
        return read(part, folder)

    monkeypatch.setattr(embedded_parts, "read", killed)
    with pytest.raises(KeyboardInterrupt):
        run(toy, tmp_path / "index", executor=toy_executor.PicklingExecutor())
    # A part that is safe in descriptors.npy is not on the disk twice.
    left = (tmp_path / ".index.unfinished/parts").glob("*.npy")
    assert sorted(path.name[:12] for path in left) == [
        f"{first:012d}" for first in (8, 12, 16)
    ]
    monkeypatch.setattr(embedded_parts, "read", read)
    executor = toy_executor.IdleExecutor()
    run(toy, tmp_path / "index", executor=executor)
    assert executor.given == []
    assert contents(tmp_path / "index") == toy["whole"]


def test_parts_that_workers_left_elsewhere(toy, tmp_path):
    with pytest.raises(OSError, match=r"without 5 of 5, such as 0+-0+4. Run"):
        run(toy, tmp_path / "index", executor=toy_executor.IdleExecutor())
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("name", ["records", "export"])
def test_workers_with_other_folders(toy, tmp_path, name):
    with pytest.raises(
        ValueError, match=f"Expected the {name} of this run.*{'f' * 12}. Rec"
    ):
        embed_part(toy, tmp_path, **{f"{name}_fingerprint": 64 * "f"})
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(toy, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"the part 0+4-0+8.*No space left"):
        embed_part(toy, tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_a_model_is_loaded_from_on_other_machines(
    toy, tmp_path, monkeypatch
):
    """Paths do not depend on the folder that a command runs in."""
    monkeypatch.chdir(toy["export"].parent)
    servable = serving.load("export")
    load = pickle.loads(
        pickle.dumps(functools.partial(serving.load, servable.source))
    )
    monkeypatch.chdir(tmp_path)
    assert load().fingerprint == servable.fingerprint


def test_records_that_are_built_again_at_the_same_path(toy, tmp_path):
    """By one process: it must not read them as it read those before."""
    records = tmp_path / "records"
    shutil.copytree(toy["records"], records)
    (tmp_path / "other").mkdir()
    other = toy_search.records(tmp_path / "other", first_place=7)
    inputs = {"export": toy["export"], "records": records}
    run(inputs, tmp_path / "first", executor=toy_executor.PicklingExecutor())
    shutil.rmtree(records)
    other.rename(records)
    run(inputs, tmp_path / "second", executor=toy_executor.PicklingExecutor())
    opened = Index.open(tmp_path / "second", exact=True)
    source = Records(records)
    rows = source.rows("test", "database")
    expected, _ = serving.load(toy["export"])(list(source.read_images(rows)))
    assert opened.manifest["image_id"].tolist() == rows["image_id"].tolist()
    np.testing.assert_allclose(opened.descriptors, expected, atol=1e-6)
    before = Index.open(tmp_path / "first", exact=True)
    assert np.abs(before.descriptors - opened.descriptors).max() > 0.1
