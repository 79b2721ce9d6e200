"""Builds that do not come to their end, or whose images change meanwhile."""

import os
import subprocess
import sys

import pytest
from paths import ROOT
from test_build_records import build, contents, large_photos, photos
from toy_executor import IdleExecutor, ObservedExecutor, PicklingExecutor
from toy_search import jpeg

from sare_tf import build_records
from sare_tf.dataset import manifest
from sare_tf.records import image_preparation, records
from sare_tf.records.options import RecordOptions


@pytest.mark.own_process
def test_a_build_killed_at_any_moment_is_completed(tmp_path):
    large_photos(tmp_path / "photos", places=3, database=3, queries=1)
    script = ROOT / "tests" / "killed_builds.py"
    points = 7
    result = subprocess.run(
        [sys.executable, script, tmp_path / "photos", tmp_path / "records"]
        + [str(points)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(script.parents[1])},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    first, more = map(int, result.stdout.split())
    # Opening every image is such a moment.
    assert first > 36
    assert more > 30


def test_finished_shards_are_used_again(tmp_path):
    photos(tmp_path / "photos")
    whole = contents(build(tmp_path))
    (tmp_path / "records").rename(tmp_path / "before")

    def stop(do, shards):
        for shard in shards[:4]:
            do(shard)
        raise KeyboardInterrupt

    stopped, resumed = ObservedExecutor(stop), ObservedExecutor()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, executor=stopped)
    assert not (tmp_path / "records").exists()
    build(tmp_path, executor=resumed)
    assert (len(stopped.given), len(resumed.given)) == (6, 2)
    assert contents(tmp_path / "records") == whole
    assert not (tmp_path / ".records.partial").exists()


def test_an_executor_that_leaves_a_shard_out(tmp_path):
    photos(tmp_path / "photos")

    def forget(do, shards):
        for shard in shards[1:]:
            do(shard)

    with pytest.raises(OSError, match="without 1 of 6, such as"):
        build(tmp_path, executor=ObservedExecutor(forget))
    build(tmp_path, executor=(resumed := ObservedExecutor()))
    assert len(resumed.given) == 1


def test_an_executor_elsewhere_builds_the_same_bytes(tmp_path):
    """All it is given is pickled, one shard after the other."""
    photos(tmp_path / "photos")
    whole = contents(build(tmp_path))
    (tmp_path / "records").rename(tmp_path / "before")
    executor = PicklingExecutor()
    assert contents(build(tmp_path, executor=executor)) == whole
    assert len(executor.given) == 6
    assert all(shard.rows is not None for shard in executor.given)


def changed_shards(before, after):
    """Names of shards whose file is another one."""
    return {
        path.name
        for path in after.glob("*.tfrecord")
        if path.stat().st_ino
        not in {path.stat().st_ino for path in before.glob("*.tfrecord")}
    }


def test_images_that_are_added_rebuild_their_shards_alone(tmp_path):
    large_photos(tmp_path / "photos", places=12, database=3, queries=1)
    options = {"shard_mebibytes": 1}
    build(tmp_path, **options)
    count = len(list((tmp_path / "records").glob("*.tfrecord")))
    assert count > 12
    before = tmp_path / "before"
    before.mkdir()
    for path in (tmp_path / "records").iterdir():
        os.link(path, before / path.name)
    for view in range(7, 12):
        path = tmp_path / f"photos/train/database/p5/{view}.jpg"
        path.write_bytes(jpeg(5, view).ljust(200_000))
    built = build(tmp_path, **options)
    # The place is now larger than a shard: they are more, under other names.
    assert len(list(built.glob("*.tfrecord"))) > count
    changed = changed_shards(before, built)
    assert 1 <= len(changed) <= 3
    assert all(name.startswith("train-database") for name in changed)
    after = contents(built)
    built.rename(tmp_path / "old")
    assert contents(build(tmp_path, **options)) == after


@pytest.mark.parametrize("change", ["content", "time"])
def test_a_file_that_changed_is_noticed(tmp_path, change):
    photos(tmp_path / "photos")
    build(tmp_path)
    path = tmp_path / "photos/val/queries/p1/0.jpg"
    if change == "content":
        path.write_bytes(jpeg(77, 0))
    else:
        os.utime(path, ns=(1, 1))
    executor = ObservedExecutor()
    build(tmp_path, executor=executor)
    [shard] = executor.given
    assert shard.name == "val-query-00000-of-00001.tfrecord"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "has vanished"),
        (lambda path: path.write_bytes(jpeg(7, 7)), "has changed"),
        (lambda path: os.utime(path, ns=(1, 1)), "has changed"),
    ],
)
def test_an_image_that_changes_meanwhile(tmp_path, change, message):
    """What is built then is that which is there then."""
    photos(tmp_path / "photos")

    def interfere(do, shards):
        for shard in shards[:2]:
            do(shard)
        change(tmp_path / "photos/val/queries/p1/0.jpg")
        for shard in shards:
            do(shard)

    with pytest.raises(ValueError, match=message):
        build(tmp_path, executor=ObservedExecutor(interfere))
    assert not (tmp_path / "records").exists()
    assert any((tmp_path / ".records.partial").iterdir())
    build(tmp_path)
    opened = records.Records(tmp_path / "records")
    for row, encoded in zip(
        opened.manifest["image_id"],
        opened.read_images(opened.manifest),
        strict=True,
    ):
        assert (tmp_path / "photos" / row).read_bytes() == encoded


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch):
    photos(tmp_path / "photos")
    real = image_preparation._read

    def fails(root, task):
        if task.image_id == "val/queries/p1/0.jpg":
            raise OSError(5, "Input/output error")
        return real(root, task)

    monkeypatch.setattr(image_preparation, "_read", fails)
    out = build(tmp_path)
    rejected = (out / "rejected.csv").read_text().splitlines()
    assert rejected[1:] == [
        "val/queries/p1/0.jpg,cannot be read: [Errno 5] Input/output error"
    ]
    fingerprint = records.Records(out).fingerprint

    def stop(do, shards):
        for shard in shards:
            do(shard)
        raise KeyboardInterrupt

    # Nor is it settled by a run that was stopped.
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, executor=ObservedExecutor(stop))
    assert records.Records(out).fingerprint == fingerprint
    monkeypatch.setattr(image_preparation, "_read", real)
    build(tmp_path)
    assert len(records.Records(out).manifest) == 75
    assert (out / "rejected.csv").read_text().splitlines() == ["path,reason"]


def test_a_file_that_appears_is_noticed(tmp_path):
    """A link to nowhere, whose target comes."""
    photos(tmp_path / "photos")
    path = tmp_path / "photos/val/queries/p1/9.jpg"
    path.symlink_to(tmp_path / "target.jpg")
    out = build(tmp_path)
    assert "9.jpg,cannot be read" in (out / "rejected.csv").read_text()
    (tmp_path / "target.jpg").write_bytes(jpeg(1, 9))
    assert len(records.Records(build(tmp_path)).manifest) == 76


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up(tmp_path, small_disk):
    large_photos(tmp_path / "photos", places=4, database=3, queries=1)
    options = {
        "dataset": tmp_path / "photos",
        "reader": "place_folders",
        "shard_mebibytes": 1,
    }
    out = small_disk / "records"
    with pytest.raises(OSError, match="No space left.*Make room"):
        build_records.run(RecordOptions(records=out, **options))
    assert os.listdir(small_disk) == [".records.partial"]
    kept = list((small_disk / ".records.partial").glob("*.tfrecord"))
    assert kept
    assert not list((small_disk / ".records.partial").glob(".*"))
    subprocess.run(["mount", "-o", "remount,size=30m", small_disk], check=True)
    before = {path.stat().st_ino for path in kept}
    build_records.run(RecordOptions(records=out, **options))
    after = {path.stat().st_ino for path in out.iterdir()}
    assert before < after
    elsewhere = build_records.run(
        RecordOptions(records=tmp_path / "records", **options)
    )
    assert contents(out) == contents(elsewhere)


def test_a_disk_that_fills_up_at_the_end(tmp_path, monkeypatch):
    photos(tmp_path / "photos")

    def fails(parts, path):
        raise OSError(28, "No space left on device")

    real = manifest.write_parts
    monkeypatch.setattr(manifest, "write_parts", fails)
    with pytest.raises(OSError, match="to write records.*Make room"):
        build(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".records.partial", "photos"]
    monkeypatch.setattr(manifest, "write_parts", real)
    build(tmp_path, executor=IdleExecutor())
    assert len(records.Records(tmp_path / "records").manifest) == 75


def test_a_folder_that_cannot_be_written(tmp_path):
    photos(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="to write records.*Not a directory"):
        build_records.run(
            RecordOptions(
                dataset=tmp_path / "photos",
                records=tmp_path / "file" / "records",
                reader="place_folders",
            )
        )


def test_a_receipt_without_its_shard_counts_for_nothing(tmp_path):
    photos(tmp_path / "photos")
    folder = tmp_path / ".records.partial"

    def damage(do, shards):
        for shard in shards:
            do(shard)
        one, two, three, *_ = sorted(folder.glob("*.tfrecord"))
        one.unlink()
        two.write_bytes(two.read_bytes()[:-1])
        three.with_suffix(".json").write_text("{")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, executor=ObservedExecutor(damage))
    executor = ObservedExecutor()
    build(tmp_path, executor=executor)
    assert len(executor.given) == 3


@pytest.mark.parametrize("name", ["records.json", "manifest.parquet"])
def test_nothing_is_taken_over_from_damaged_records(tmp_path, name):
    photos(tmp_path / "photos")
    whole = contents(build(tmp_path))
    (tmp_path / "records" / name).write_bytes(b"{}")
    assert contents(build(tmp_path)) == whole
