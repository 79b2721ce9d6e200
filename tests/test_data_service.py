"""Training by images that other processes read, of which one is killed.

Real processes and SIGKILL, which no program can take notice of.
"""

import logging
import os
import shutil
import signal

import numpy as np
import pytest
import toy_damage
import toy_service
import toy_training
from finished_runs import assert_same_run
from toy_storage import SlowStorage
from toy_workers import free_port

from sare_tf import data_service, train
from sare_tf.records import image_workers
from sare_tf.records.options import DataServiceOptions
from sare_tf.records.records import Records
from sare_tf.runtime import dataset_errors, network_address
from sare_tf.training import (
    arrivals,
    datasets,
    image_service,
    unreadable_images,
)
from sare_tf.training.options import TrainingOptions

SIZE = {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def service():
    with toy_service.running(workers=2) as running:
        yield running


@pytest.fixture(autouse=True)
def _one_image_in_a_chunk(monkeypatch):
    monkeypatch.setattr(image_service, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(arrivals, "PATIENCE_S", 1.0)


def served(service, records):
    return image_service.connect(service.address, [records]).of(records)


def images_of(source, rows):
    """uint8 [B, H, W, 3], by one pass over a dataset."""
    dataset = datasets.image_dataset(source, rows, **SIZE, batch_size=7)
    with dataset_errors.as_raised():
        return np.concatenate(list(dataset.as_numpy_iterator()))


@pytest.mark.own_process
def test_images_are_the_same_from_both_workers(service, toy_records, caplog):
    records = Records(toy_records)
    with caplog.at_level(logging.INFO):
        source = served(service, records)
    for process in service.processes[1:]:
        assert f"process {process.pid}" in caplog.text
    rows = records.manifest.sample(250, replace=True, random_state=0)
    expected = images_of(records, rows)
    np.testing.assert_array_equal(images_of(source, rows), expected)
    assert image_service.MOST_IMAGES > 1
    # Several images in a chunk, of which the last is not full.
    image_service._CHUNK_BYTES = 1 << 20
    np.testing.assert_array_equal(images_of(source, rows), expected)


@pytest.mark.own_process
def test_images_from_storage(service, toy_records):
    with SlowStorage(toy_records) as storage:
        remote = Records(storage.address)
        source = served(service, remote)
        del storage.requests[:]
        rows = remote.manifest.sample(30, random_state=0)
        np.testing.assert_array_equal(
            images_of(source, rows), images_of(Records(toy_records), rows)
        )
        assert storage.requests


@pytest.mark.own_process
def test_an_image_that_cannot_be_read_is_left_out(
    service, toy_records, toy_run, tmp_path, caplog
):
    folder = shutil.copytree(toy_records, tmp_path / "records")
    row = Records(folder).rows("train", "query").iloc[4]
    toy_damage.flip(
        folder / row["shard"], row["byte_offset"] + row["byte_length"] // 2
    )
    run = shutil.copytree(toy_run.after[1], tmp_path / "run")
    alone = shutil.copytree(run, tmp_path / "alone")
    options = {"records": folder, **toy_training.OPTIONS}
    train.run(
        TrainingOptions(
            checkpoints=run, data_service=service.address, **options
        )
    )
    assert list(unreadable_images.read(run)) == [row["image_id"]]
    train.run(TrainingOptions(checkpoints=alone, **options))
    assert_same_run(run, alone)


@pytest.mark.own_process
def test_chunks_that_do_not_come_are_read_here(
    service, toy_records, monkeypatch, caplog
):
    """As those of a killed worker do not; here, it is known which."""
    arriving = image_service._Chunks._next

    def losing(chunks, stream):
        while True:
            is_tick, number, images = arriving(chunks, stream)
            if is_tick or number % 5 != 2:
                return is_tick, number, images

    records = Records(toy_records)
    rows = records.manifest.sample(100, replace=True, random_state=0)
    monkeypatch.setattr(image_service._Chunks, "_next", losing)
    np.testing.assert_array_equal(
        images_of(served(service, records), rows), images_of(records, rows)
    )
    assert "20 of 100 chunks of images did not come from" in caplog.text


@pytest.mark.own_process
def test_a_killed_worker_changes_nothing(
    toy_records, toy_run, tmp_path, monkeypatch
):
    """In the middle of a dataset; nor one that ends during an epoch."""
    with toy_service.running(workers=2) as service:
        records = Records(toy_records)
        source = served(service, records)
        rows = records.manifest.sample(3000, replace=True, random_state=0)
        dataset = datasets.image_dataset(source, rows, **SIZE, batch_size=20)
        batches = []
        for batch in dataset.as_numpy_iterator():
            batches.append(batch)
            if len(batches) == 5:
                service.processes[1].send_signal(signal.SIGKILL)
        np.testing.assert_array_equal(
            np.concatenate(batches), images_of(records, rows)
        )
        # A worker may come meanwhile.
        service.processes.append(
            toy_service.start(f"--dispatcher={service.address}")
        )
        toy_service.address_of(service.processes[-1])
        made, number = datasets.tuple_dataset, []

        def killing(*arguments, **options):
            number.append(1)
            if len(number) == 2:
                service.processes[2].terminate()
            return made(*arguments, **options)

        monkeypatch.setattr(datasets, "tuple_dataset", killing)
        run = shutil.copytree(toy_run.after[1], tmp_path / "run")
        options = {
            "records": toy_records,
            "checkpoints": run,
            "data_service": service.address,
            **toy_training.OPTIONS,
        }
        train.run(TrainingOptions(**options))
        assert len(number) == 2
        assert_same_run(run, toy_run.finished)

        # Without any worker, an error with what to do.
        for process in service.processes[1:]:
            process.kill()
        monkeypatch.setattr(image_service, "SILENCE_S", 2.0)
        monkeypatch.setattr(datasets, "tuple_dataset", made)
        shutil.rmtree(run)
        shutil.copytree(toy_run.after[1], run)
        with pytest.raises(ConnectionError, match="none within 2 s. Start wor"):
            train.run(TrainingOptions(**options))
        with pytest.raises(
            ConnectionError, match="nothing for 2 s. Start work"
        ):
            images_of(source, rows)
    # The run resumes, here without a service.
    train.run(TrainingOptions(**options | {"data_service": None}))
    assert_same_run(run, toy_run.finished)


def test_workers_that_are_not_right_are_named(toy_records):
    records = Records(toy_records)
    worker = {
        "worker": "b, process 7",
        "versions": image_workers.VERSIONS,
        "records": [records.fingerprint],
    }
    paths = ["/data/records"]
    image_service._check(worker, paths, [records])
    with pytest.raises(ValueError, match="Received: sare_tf 9 of the worker b"):
        image_service._check(
            worker | {"versions": "sare_tf 9"}, paths, [records]
        )
    for found in ("0" * 64, "FileNotFoundError: records.json"):
        with pytest.raises(
            ValueError, match=f"'/data/records' on the worker b.* with {found}"
        ):
            image_service._check(
                worker | {"records": [found]}, paths, [records]
            )
    assert image_workers._fingerprint(str(toy_records)) == records.fingerprint
    assert "FileNotFoundError" in image_workers._fingerprint("nowhere")


def test_a_later_worker_of_another_version_is_named():
    column = np.array([0])
    with pytest.raises(RuntimeError, match="worker .*TensorFlow.* sare_tf 9"):
        image_workers._read(b"sare_tf 9", np.array([b"x"]), *[column] * 4)
    with pytest.raises(RuntimeError, match="worker .*No such file"):
        image_workers._read(
            image_workers.VERSIONS.encode(), np.array([b"x"]), *[column] * 4
        )


def test_workers_register_before_anything_else(monkeypatch):
    """TensorFlow numbers functions, and trainings know the first two."""
    monkeypatch.setattr(image_workers, "_REGISTERED", [])

    def register_twice():
        image_workers.register()
        image_workers.register()

    with pytest.raises(RuntimeError, match="made no graph yet. Received"):
        register_twice()


def test_where_nothing_listens(toy_records, tmp_path):
    with free_port() as port:
        address = f"grpc://localhost:{port}"
        with pytest.raises(ConnectionError, match="refused. Start the service"):
            train.run(
                TrainingOptions(
                    records=toy_records,
                    checkpoints=tmp_path,
                    data_service=address,
                    **toy_training.OPTIONS,
                )
            )
        with pytest.raises(ConnectionError, match="refused. Start a dispatch"):
            network_address.check_answers(address, advice="Start a dispatcher")


@pytest.mark.parametrize(
    "address", ["localhost:5", "grpc://host", "http://host:5", "grpc://h:99999"]
)
def test_addresses_that_are_none(address):
    message = f"such as grpc://host:5050. Received: '{address}'"
    with pytest.raises(ValueError, match=message):
        toy_training.options(data_service=address)
    with pytest.raises(ValueError, match=message):
        DataServiceOptions(dispatcher=address)


def test_tuple_records_are_read_by_the_training():
    with pytest.raises(ValueError, match="tuples or a data_service.*in sequen"):
        toy_training.options(data_service="grpc://host:5", tuples="folder")


def test_names_by_which_others_reach_a_process():
    for here in ("grpc://localhost:5", "grpc://127.0.0.1:5", "grpc://[::1]:5"):
        assert network_address.host_for(here) == "localhost"
    for other in (None, "grpc://b:5"):
        assert network_address.host_for(other) == os.uname().nodename


@pytest.mark.own_process
def test_a_process_ends_when_it_is_asked_to():
    process = toy_service.start("--service_port=0")
    address = toy_service.address_of(process)
    port = network_address.parse(address)[1]
    with pytest.raises(OSError, match=f"a free port. Received: port={port}"):
        data_service.run(DataServiceOptions(service_port=port))
    process.terminate()
    assert process.wait(timeout=30) == 0
    process.stdout.close()
