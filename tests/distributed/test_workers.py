"""Two workers train as one process, and notice when one is lost."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import toy_training
import toy_workers

from sare_tf import train
from sare_tf.distributed import workers
from sare_tf.training.options import TrainingOptions
from sare_tf.training.run_folder import read_state

pytestmark = pytest.mark.own_process
TUPLES = toy_workers.OPTIONS


@pytest.fixture
def records(toy_records):
    return str(toy_records)


def test_two_workers_end_as_one_though_one_was_killed(records, tmp_path):
    """Worker 1 is killed before dataset 2: in epoch 2, after its mining.

    They resume a run of one process. The chief ends with an error, its
    checkpoint is that of epoch 1; started again, the two resume there, with the
    averages of the weights.
    """
    run = {"records": records, **TUPLES, "averaging_momentum": 0.75}
    by_one = toy_training.RecordedRun(tmp_path, **run)
    run |= {"checkpoints": str(by_one.after[1]), "strategy": "multi_worker"}
    chief, killed = toy_workers.start(2, **run, killed_at=[None, 2])
    toy_workers.output(killed)
    output = toy_workers.output(chief, within_s=120)
    assert chief.returncode == 1
    assert "Expected all workers to stay to the end." in output
    assert "Start all of them again" in output
    assert read_state(run["checkpoints"])[1]["last"] == "epoch-0001"
    toy_workers.finish(*toy_workers.start(2, **run))
    toy_workers.assert_same_training(by_one.finished, run["checkpoints"])


def test_two_workers_train_on_places_as_one(records, tmp_path):
    """A batch of 8 images: 4 of each worker, two at a time."""
    run = {
        "records": records,
        **TUPLES,
        "loss": "place_sare_joint",
        "places_per_batch": 2,
        "images_per_place": 4,
        "memory_images": 12,
        "memory_after_steps": 1,
        "epochs": 1,  # three steps
    }
    by_one = train.run(TrainingOptions(checkpoints=tmp_path / "one", **run))
    run |= {"checkpoints": str(tmp_path / "two"), "strategy": "multi_worker"}
    toy_workers.finish(*toy_workers.start(2, **run, chunk_images=2))
    toy_workers.assert_same_training(by_one, run["checkpoints"])


def test_a_worker_whose_others_do_not_come_ends(tmp_path):
    run = {"records": "nowhere", "checkpoints": str(tmp_path / "checkpoints")}
    run |= {"strategy": "multi_worker", "start_s": 1}
    with toy_workers.free_port() as port:
        (process,) = toy_workers.start(1, others=[port], **run)
        output = toy_workers.output(process)
    assert process.returncode == 1
    assert f"'localhost:{port}']. If they have not come" in output
    assert "within 1 s, this process ends: start all of them" in output
    assert "Timeout" in output


def test_workers_that_were_started_otherwise_are_refused(monkeypatch):
    """By the digests of their settings; real workers gather them above."""
    of_worker_1 = []

    def gathered(strategy, arrays):
        if not of_worker_1:
            of_worker_1.extend(arrays)
        return [
            np.stack(pair) for pair in zip(arrays, of_worker_1, strict=True)
        ]

    monkeypatch.setattr(workers, "is_used", lambda strategy: True)
    monkeypatch.setattr(workers, "_gathered", gathered)
    workers.check_same(None, "--seed=1")
    workers.check_same(None, "--seed=1")
    with pytest.raises(ValueError, match="all workers to have the same flags"):
        workers.check_same(None, "--seed=0")
    with pytest.raises(ValueError, match=r"\[1\] with others than the chief"):
        workers.check_same(None, "--seed=0")


def test_replicas_of_a_worker_get_their_parts_of_its_batches():
    """A worker's batches of 4, for two devices: 2 each, in turn."""
    strategy = SimpleNamespace(
        extended=SimpleNamespace(worker_devices=["GPU:0", "GPU:1"]),
        distribute_datasets_from_function=lambda make: make(None),
    )
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(8), np.ones(8)))
    found = workers._by_replica(strategy, dataset.batch(4, True))
    assert [x.tolist() for x, _ in found.as_numpy_iterator()] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]
