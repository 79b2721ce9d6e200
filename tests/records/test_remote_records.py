"""Records on a server are those on the disk."""

import logging
import shutil

import pandas as pd
import pytest
import tensorflow as tf
import toy_damage
import toy_training
from finished_runs import assert_same_run
from toy_storage import SlowStorage

from sare_tf import train
from sare_tf.records import range_reading
from sare_tf.records.options import RecordOptions
from sare_tf.records.records import Records
from sare_tf.runtime import remote_files
from sare_tf.training import unreadable_images
from sare_tf.training.options import TrainingOptions


@pytest.fixture
def storage(toy_records, monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSE_S", 0.0)
    with SlowStorage(toy_records) as server:
        yield server


@pytest.fixture
def small_windows(monkeypatch):
    """Windows and ranges of a few images."""
    size = 8 * 500  # an image has 700 to 1,000 bytes
    monkeypatch.setattr(range_reading, "WINDOW_BYTES", size)
    monkeypatch.setattr(range_reading, "RANGE_BYTES", size // 2)
    monkeypatch.setattr(range_reading, "GAP_BYTES", 0)


@pytest.mark.parametrize("small", [False, True])
def test_images_in_any_order(toy_records, storage, small, request):
    if small:
        request.getfixturevalue("small_windows")
    local, remote = Records(toy_records), Records(storage.address)
    pd.testing.assert_frame_equal(local.manifest, remote.manifest)
    assert remote.fingerprint == local.fingerprint
    shuffled = local.manifest.sample(frac=1, random_state=0)
    orders = [
        *(local.manifest, shuffled, pd.concat([shuffled, shuffled])),
        *(local.manifest.iloc[:1], local.manifest.iloc[:0]),
    ]
    for rows in orders:
        expected = list(local.read_images(rows))
        assert list(remote.read_images(rows)) == expected
        dataset = remote.encoded_dataset(rows)
        assert dataset.cardinality() == len(rows)
        # A dataset is read any number of times.
        for _ in range(2):
            assert list(dataset.as_numpy_iterator()) == expected


def test_images_in_order_take_a_request_for_each_file(storage):
    remote = Records(storage.address)
    del storage.requests[:]
    list(remote.read_images(remote.manifest))
    assert len(storage.requests) == remote.manifest["shard"].nunique()


def test_images_in_any_order_are_requested_at_the_same_time(
    storage, monkeypatch
):
    storage.latency_s = 0.02
    remote = Records(storage.address)
    rows = remote.manifest.sample(frac=1, random_state=0)
    monkeypatch.setattr(range_reading, "RANGE_BYTES", 0)
    del storage.requests[:]
    storage.most_at_once = 0
    list(remote.read_images(rows))
    assert len(storage.requests) == len(rows)
    assert storage.most_at_once > 8


def test_memory_is_bounded(storage, small_windows, monkeypatch):
    """No more windows are requested than may be held."""
    remote = Records(storage.address)
    places = remote.places(remote.manifest)
    windows = len(list(range_reading._windows(places)))
    requested, read = [], range_reading._requested
    monkeypatch.setattr(
        range_reading,
        "_requested",
        lambda *window: (requested.append(1), read(*window))[1],
    )
    for number, _ in enumerate(range_reading.read(places)):
        assert len(requested) <= number + range_reading.WINDOWS
    assert len(requested) == windows > range_reading.WINDOWS


def test_faults_of_the_server_change_nothing(storage, small_windows):
    remote = Records(storage.address)
    expected = list(remote.read_images(remote.manifest))
    storage.faults += ["503", "fine", "damaged", "broken", "503", "damaged"]
    assert list(remote.read_images(remote.manifest)) == expected
    assert not storage.faults


def test_an_image_that_is_damaged_there(toy_records, tmp_path):
    folder = shutil.copytree(toy_records, tmp_path / "records")
    rows = Records(folder).rows("train", "query")
    row = rows.iloc[3]
    toy_damage.flip(
        folder / row["shard"], row["byte_offset"] + row["byte_length"] // 2
    )
    with SlowStorage(folder) as storage:
        remote = Records(storage.address)
        with pytest.raises(ValueError, match="is not the one that was built"):
            list(remote.read_images(rows))
        # A dataset continues, so that all damaged images are named.
        bad = dict(unreadable_images._unreadable(remote, rows))
    assert list(bad) == [row["image_id"]]


def test_records_that_are_not_there_or_damaged(toy_records, tmp_path):
    folder = shutil.copytree(toy_records, tmp_path / "records")
    with SlowStorage(tmp_path) as storage:
        with pytest.raises(FileNotFoundError, match="other'.*copy the folder"):
            Records(f"{storage.address}/other")
        toy_damage.flip(folder / "manifest.parquet", 300)
        address = f"{storage.address}/records"
        with pytest.raises(ValueError, match=f"{address}'.*manifest.parquet"):
            Records(address)


def test_records_that_change_meanwhile(toy_records, tmp_path):
    folder = shutil.copytree(toy_records, tmp_path / "records")
    with SlowStorage(folder) as storage:
        remote = Records(storage.address)
        shard = folder / remote.manifest["shard"].iloc[0]
        with shard.open("ab") as file:
            file.write(b"more")
        with pytest.raises(ConnectionError, match="do not change while.*size"):
            list(remote.read_images(remote.manifest))
        with pytest.raises(ValueError, match="has .* bytes, not"):
            Records(storage.address)


def test_records_in_storage_of_tensorflow(toy_records):
    address = "ram://toy/records"
    for path in toy_records.iterdir():
        with tf.io.gfile.GFile(f"{address}/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    local, remote = Records(toy_records), Records(address)
    rows = local.manifest.sample(frac=1, random_state=0)
    assert list(remote.read_images(rows)) == list(local.read_images(rows))


def test_training_is_the_same(toy_records, storage, toy_run, tmp_path, caplog):
    """Bit for bit, although the server fails; and resumed after an epoch."""
    run = shutil.copytree(toy_run.after[1], tmp_path / "run")
    options = {"checkpoints": run, **toy_training.OPTIONS}
    storage.faults += [*["fine"] * 5, "503", "broken", "damaged"] * 3
    with caplog.at_level(logging.INFO):
        train.run(TrainingOptions(records=storage.address, **options))
    assert "Resuming after epoch-0001" in caplog.text
    assert_same_run(run, toy_run.finished)


def test_a_server_that_goes_away_is_named(toy_records, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_files, "_PAUSE_S", 0.0)
    with SlowStorage(toy_records) as storage:
        options = TrainingOptions(
            records=storage.address,
            checkpoints=tmp_path / "run",
            **toy_training.OPTIONS,
        )
        storage.faults += ["fine"] * 2 + ["503"] * 100
        with pytest.raises(ConnectionError, match="answer 503, 7 times. Run"):
            train.run(options)


@pytest.mark.parametrize("verify", [False, True])
def test_records_are_built_and_verified_on_a_disk(verify):
    with pytest.raises(ValueError, match="on a disk to build or verify"):
        RecordOptions(dataset="x", records="https://host/x", verify=verify)
